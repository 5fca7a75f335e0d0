//! `POST /_synapse/admin/v1/send_server_notice` and `PUT …/{txnId}`: an administrator speaks to a user as the server
//! (Client-Server API, "Server Notices"). The paths are those that tools know from other homeservers.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    routing::{post, put},
};
use myelin_rooms::{
    Rooms, Sender,
    server_notices::{Notice, Noticed},
};
use myelin_users::{Users, registration::Registration};
use myelin_view::View;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ApiError, AppState, ServerConfig,
    extract::{Admin, Auth, JsonBody, Path},
    respond::Json,
};

const TAG: &str = "m.server_notice";

#[derive(Deserialize)]
struct Body {
    user_id: OwnedUserId,
    content: Map<String, Value>,
}

pub fn routes() -> Router<AppState> {
    const PATH: &str = "/_synapse/admin/v1/send_server_notice";
    Router::new().route(PATH, post(send)).route(&format!("{PATH}/{{txnId}}"), put(send_once))
}

/// What the server says to its users, whoever asks it to.
#[derive(Clone)]
pub struct Notices {
    users: Arc<Users>,
    rooms: Arc<Rooms>,
    view: View,
    config: Arc<ServerConfig>,
}

impl axum::extract::FromRef<AppState> for Notices {
    fn from_ref(state: &AppState) -> Self {
        Self {
            users: axum::extract::FromRef::from_ref(state),
            rooms: axum::extract::FromRef::from_ref(state),
            view: axum::extract::FromRef::from_ref(state),
            config: axum::extract::FromRef::from_ref(state),
        }
    }
}

async fn send(
    _: Auth<Admin>,
    State(notices): State<Notices>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    told(notices.send(body.user_id, body.content, None).await?)
}

async fn send_once(
    _: Auth<Admin>,
    State(notices): State<Notices>,
    Path(txn_id): Path<String>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    told(notices.send(body.user_id, body.content, Some(txn_id)).await?)
}

fn told(noticed: Noticed) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "event_id": noticed.event_id, "room_id": noticed.room_id })))
}

impl Notices {
    pub async fn send(
        &self,
        user_id: OwnedUserId,
        mut content: Map<String, Value>,
        transaction_id: Option<String>,
    ) -> Result<Noticed, ApiError> {
        let account = self.users.account(&user_id).await?;
        let account = account.filter(|account| !account.record.deactivated);
        let account = account.ok_or_else(|| ApiError::not_found("There is no such user on this server."))?;
        if !content.get("body").is_some_and(Value::is_string) {
            return Err(ApiError::bad_json("The content of a notice has a 'body'."));
        }
        content.entry("msgtype").or_insert_with(|| json!("m.server_notice"));
        let sender = self.speaker().await?;
        if account.user == sender.user {
            return Err(ApiError::invalid_param("The server does not speak to itself."));
        }
        let notice = Notice { user: account.user, user_id, content, transaction_id };
        let noticed = self.rooms.send_server_notice(&sender, &notice, &self.config.notice_room).await?;
        self.users.set_tag(account.user, noticed.room, TAG, Map::new()).await?;
        Ok(noticed)
    }

    /// The user by whom the server speaks: an account that nobody can log in to.
    async fn speaker(&self) -> Result<Sender, ApiError> {
        let localpart = &self.config.notices_localpart;
        let user_id = UserId::parse(format!("@{localpart}:{}", self.view.server_name))
            .map_err(|_| ApiError::internal("the name of the user of server notices is none"))?;
        let account = match self.users.account(&user_id).await? {
            Some(account) => account,
            None => {
                let registration =
                    Registration { username: Some(localpart.clone()), ..Registration::default() };
                self.users.register(&registration).await?;
                let account = self.users.account(&user_id).await?;
                account.ok_or_else(|| ApiError::internal("the user of server notices is not there"))?
            }
        };
        if account.record.password_hash.is_some() {
            return Err(ApiError::forbidden(format!(
                "{user_id} is somebody's account: choose another name for server notices."
            )));
        }
        Ok(Sender { user: account.user, user_id, guest: false, suspended: false, admin: false })
    }
}
