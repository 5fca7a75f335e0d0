//! `GET /_matrix/client/v3/pushers` and `POST /pushers/set` (Client-Server API, "Push notifications"). They are kept;
//! nothing is sent to them yet.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use myelin_store::tables::PusherRecord;
use myelin_users::{
    Users,
    pushers::{PusherError, PusherId},
};
use myelin_view::View;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ApiError, AppState,
    extract::{Auth, JsonBody},
    rate_limit::{Class, Limits},
    respond::{Empty, Json},
};

const PUSHKEY_SIZE_MAX: usize = 512;
const APP_ID_CHARS_MAX: usize = 64;
/// Names, language and tag.
const FIELD_SIZE_MAX: usize = 255;
const DATA_SIZE_MAX: usize = 8 * 1024;
const HTTP: &str = "http";
const EMAIL: &str = "email";
const EMAIL_APP: &str = "m.email";
const NOTIFY_PATH: &str = "/_matrix/push/v1/notify";
const EVENT_ID_ONLY: &str = "event_id_only";

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_matrix/client/v3/pushers", get(list))
        .route("/_matrix/client/v3/pushers/set", post(set))
}

async fn list(auth: Auth, State(users): State<Arc<Users>>) -> Result<Json<Value>, ApiError> {
    let pushers = users.pushers(auth.user).await?;
    let pushers: Vec<_> = pushers.into_iter().map(|(id, pusher)| shown(&id, &pusher)).collect();
    Ok(Json(json!({ "pushers": pushers })))
}

fn shown(id: &PusherId, pusher: &PusherRecord) -> Value {
    let mut json = json!({
        "app_id": id.app_id,
        "pushkey": id.pushkey,
        "kind": pusher.kind,
        "app_display_name": pusher.app_display_name,
        "device_display_name": pusher.device_display_name,
        "lang": pusher.lang,
        "data": serde_json::from_str::<Value>(&pusher.data).unwrap_or_else(|_| json!({})),
    });
    if let Some(tag) = &pusher.profile_tag {
        json["profile_tag"] = tag.as_str().into();
    }
    json
}

#[derive(Deserialize)]
struct Body {
    app_id: String,
    pushkey: String,
    /// Required, and may be null.
    #[serde(default, deserialize_with = "present")]
    kind: Option<Option<String>>,
    app_display_name: Option<String>,
    device_display_name: Option<String>,
    profile_tag: Option<String>,
    lang: Option<String>,
    data: Option<Map<String, Value>>,
    #[serde(default)]
    append: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

async fn set(
    auth: Auth,
    limits: Limits,
    State(users): State<Arc<Users>>,
    State(view): State<View>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Empty, ApiError> {
    limits.check(Class::Write, &auth)?;
    let kind = body.kind.clone().ok_or_else(|| ApiError::missing_param("Missing parameters: kind"))?;
    let id = PusherId { app_id: body.app_id.clone(), pushkey: body.pushkey.clone() };
    check_id(&id)?;
    let Some(kind) = kind else {
        users.delete_pusher(auth.user, &id).await?;
        return Ok(Empty);
    };
    let append = body.append;
    let pusher = pusher(body, kind, auth.device_id.to_string(), view.env.now_ms())?;
    users.set_pusher(auth.user, &id, &pusher, append).await?;
    Ok(Empty)
}

fn check_id(id: &PusherId) -> Result<(), ApiError> {
    if id.pushkey.is_empty() || id.pushkey.len() > PUSHKEY_SIZE_MAX {
        return Err(ApiError::invalid_param("pushkey has 1 to 512 bytes."));
    }
    if id.app_id.is_empty() || id.app_id.chars().count() > APP_ID_CHARS_MAX {
        return Err(ApiError::invalid_param("app_id has 1 to 64 characters."));
    }
    Ok(())
}

fn pusher(body: Body, kind: String, device_id: String, now_ms: u64) -> Result<PusherRecord, ApiError> {
    let fields = [
        ("app_display_name", body.app_display_name.is_none()),
        ("device_display_name", body.device_display_name.is_none()),
        ("lang", body.lang.is_none()),
        ("data", body.data.is_none()),
    ];
    let missing: Vec<_> = fields.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect();
    let (Some(app_display_name), Some(device_display_name), Some(lang), Some(data)) =
        (body.app_display_name, body.device_display_name, body.lang, body.data)
    else {
        return Err(ApiError::missing_param(format!("Missing parameters: {}", missing.join(", "))));
    };
    let lengths = [&app_display_name, &device_display_name, &lang].map(String::len);
    let tag_length = body.profile_tag.as_ref().map_or(0, String::len);
    if lengths.into_iter().chain([tag_length]).any(|length| length > FIELD_SIZE_MAX) {
        return Err(ApiError::invalid_param("Names, lang and profile_tag have at most 255 bytes."));
    }
    match kind.as_str() {
        HTTP => check_gateway(&data)?,
        EMAIL => check_email(&body.app_id, &body.pushkey)?,
        _ => return Err(ApiError::invalid_param("The kind of a pusher is http or email.")),
    }
    let data = Value::Object(data).to_string();
    if data.len() > DATA_SIZE_MAX {
        return Err(ApiError::invalid_param("data is too large."));
    }
    let profile_tag = body.profile_tag;
    Ok(PusherRecord {
        kind,
        app_display_name,
        device_display_name,
        profile_tag,
        lang,
        data,
        device_id,
        since_ms: now_ms,
    })
}

fn check_gateway(data: &Map<String, Value>) -> Result<(), ApiError> {
    if data.get("format").is_some_and(|format| format != EVENT_ID_ONLY) {
        return Err(ApiError::invalid_param("The only data.format is event_id_only."));
    }
    check_url(data)
}

fn check_url(data: &Map<String, Value>) -> Result<(), ApiError> {
    let Some(url) = data.get("url") else {
        return Err(ApiError::missing_param("Missing parameters: data.url"));
    };
    let url = url.as_str().and_then(|url| url.parse::<http::Uri>().ok());
    let good = url.is_some_and(|url| {
        url.scheme_str() == Some("https")
            && url.host().is_some_and(|host| !host.is_empty())
            && url.path() == NOTIFY_PATH
    });
    if good {
        Ok(())
    } else {
        Err(ApiError::invalid_param("data.url is an https URL with the path /_matrix/push/v1/notify."))
    }
}

fn check_email(app_id: &str, pushkey: &str) -> Result<(), ApiError> {
    if app_id != EMAIL_APP {
        return Err(ApiError::invalid_param("The app_id of an email pusher is m.email."));
    }
    let good = pushkey.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !host.contains('@') && !pushkey.contains(char::is_whitespace)
    });
    if good { Ok(()) } else { Err(ApiError::invalid_param("The pushkey of an email pusher is an address.")) }
}

impl From<PusherError> for ApiError {
    fn from(error: PusherError) -> Self {
        match error {
            PusherError::TooMany => Self::resource_limit_exceeded(error.to_string()),
            PusherError::Failed(error) => error.into(),
        }
    }
}
