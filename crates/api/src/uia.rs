//! User-interactive authentication at the edge (Client-Server API, "User-Interactive Authentication API"): the `auth`
//! member of a request goes in, a proof or the 401 answer comes out. Sessions and stages are `myelin_users::uia`'s.
//!
//! ```ignore
//! async fn delete_devices(auth: Auth, uia: Uia, body: UiaBody<Devices>) -> Result<Empty, RouteError> {
//!     uia.confirm("POST /delete_devices", &auth, &body).await?;
//!     ...
//! ```

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use http::request::Parts;
use myelin_core::limits::REQUEST_BODY_SIZE_MAX;
use myelin_users::{
    Users,
    uia::{AuthData, Challenge, Flow, Operation, Progress, Proof, Stage, StageFailure, UiaError},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    ApiError, AppState, ServerConfig, Session,
    config::Terms,
    extract::{ClientAddress, parse_json, read_body},
    rate_limit::{Class, RateLimiter, Subject},
};

/// A JSON body with an `auth` member beside those of `T`. An empty body is `{}`.
pub struct UiaBody<T> {
    pub body: T,
    pub auth: Option<AuthData>,
    /// Hash of everything but `auth`.
    request: [u8; 32],
}

/// Checks the `auth` member.
pub struct Uia {
    users: Arc<Users>,
    limiter: Arc<RateLimiter>,
    config: Arc<ServerConfig>,
    address: ClientAddress,
}

impl Uia {
    /// Before a signed-in user does something grave: the password once more.
    pub async fn confirm<T>(
        &self,
        purpose: &str,
        session: &Session,
        body: &UiaBody<T>,
    ) -> Result<Proof, ApiError> {
        let flows = [vec![Stage::Password]];
        self.check(
            Operation { purpose, user: Some(session.user), request: body.request, flows: &flows },
            body,
        )
        .await
    }

    /// Before anything of an account is known (registration, a forgotten password). `flows` without the terms, which
    /// are added here if there are any.
    pub async fn admit<T>(
        &self,
        purpose: &str,
        flows: Vec<Flow>,
        body: &UiaBody<T>,
    ) -> Result<Proof, ApiError> {
        let flows = with_terms(flows, &self.config.terms);
        self.check(Operation { purpose, user: None, request: body.request, flows: &flows }, body).await
    }

    /// The general form.
    pub async fn check<T>(&self, operation: Operation<'_>, body: &UiaBody<T>) -> Result<Proof, ApiError> {
        let guesses = operation.user.map_or(Subject::address(self.address.0), Subject::User);
        if body.auth.as_ref().is_some_and(|auth| auth.kind.is_some()) {
            self.limiter.peek(Class::FailedLogin, guesses)?;
        }
        match self.users.authenticate(operation, body.auth.as_ref()).await? {
            Progress::Complete(proof) => Ok(proof),
            Progress::Incomplete(challenge) => {
                // Clients ask again and again whether the link in a mail was followed; nothing is guessed by that.
                if challenge.failure.as_ref().is_some_and(|failure| *failure != StageFailure::Email) {
                    self.limiter.check_subject(Class::FailedLogin, guesses)?;
                }
                Err(answer(operation.flows, challenge, &self.config.terms))
            }
        }
    }
}

impl From<UiaError> for ApiError {
    fn from(error: UiaError) -> Self {
        match error {
            UiaError::OtherOperation => {
                Self::forbidden("The authentication session was opened for something else.")
            }
            UiaError::UsedUp => Self::forbidden("The authentication session was used by another request."),
            UiaError::Failed(error) => error.into(),
        }
    }
}

impl FromRequestParts<AppState> for Uia {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self {
            users: FromRef::from_ref(state),
            limiter: FromRef::from_ref(state),
            config: FromRef::from_ref(state),
            address: ClientAddress::of(parts, &state.config().trusted_proxies),
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for UiaBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read_body(request, REQUEST_BODY_SIZE_MAX).await?;
        Self::parse(if bytes.is_empty() { b"{}" } else { &bytes })
    }
}

impl<T> UiaBody<T> {
    /// The hash of everything but `auth`.
    pub fn request(&self) -> [u8; 32] {
        self.request
    }
}

impl<T: DeserializeOwned> UiaBody<T> {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let mut members: BTreeMap<String, Value> = parse_json(bytes)?;
        // Clients that have nothing to say yet may say null.
        let auth = members.remove("auth").filter(|auth| !auth.is_null()).map(parse_auth).transpose()?;
        let rest = serde_json::to_vec(&members).map_err(ApiError::internal)?;
        Ok(Self { body: parse_json(&rest)?, auth, request: Sha256::digest(&rest).into() })
    }
}

fn parse_auth(auth: Value) -> Result<AuthData, ApiError> {
    serde_json::from_value(auth)
        .map_err(|e| ApiError::bad_json(format!("'auth' is not as it should be: {e}.")))
}

/// Terms come first, as Synapse has them.
fn with_terms(mut flows: Vec<Flow>, terms: &[Terms]) -> Vec<Flow> {
    if !terms.is_empty() {
        flows.iter_mut().for_each(|flow| flow.insert(0, Stage::Terms));
    }
    flows
}

fn answer(flows: &[Flow], challenge: Challenge, terms: &[Terms]) -> ApiError {
    let names = |stages: &[Stage]| stages.iter().map(|stage| stage.as_str()).collect::<Vec<_>>();
    let mut fields = Map::new();
    let flows: Vec<_> = flows.iter().map(|flow| json!({ "stages": names(flow) })).collect();
    fields.insert("flows".to_owned(), flows.into());
    fields.insert("params".to_owned(), params(terms));
    fields.insert("session".to_owned(), challenge.session.into());
    if !challenge.completed.is_empty() {
        fields.insert("completed".to_owned(), names(&challenge.completed).into());
    }
    let Some(failure) = challenge.failure else { return ApiError::challenge(fields) };
    let error = refusal(&failure).with_status(http::StatusCode::UNAUTHORIZED);
    fields.into_iter().fold(error, |error, (key, value)| error.with(&key, value))
}

fn refusal(failure: &StageFailure) -> ApiError {
    let message = failure.to_string();
    match failure {
        StageFailure::Password => ApiError::forbidden("Invalid password"),
        StageFailure::RegistrationToken => ApiError::unauthorized(message),
        StageFailure::Email => ApiError::threepid_auth_failed(message),
        StageFailure::NotOffered(_) => ApiError::unrecognized(message),
        StageFailure::Missing(_) => ApiError::missing_param(message),
    }
}

/// What clients must know of the stages: the documents to agree to.
fn params(terms: &[Terms]) -> Value {
    if terms.is_empty() {
        return json!({});
    }
    let mut policies = Map::new();
    for document in terms {
        let policy = policies.entry(&document.id).or_insert_with(|| json!({ "version": document.version }));
        policy[&document.language] = json!({ "name": document.name, "url": document.url });
    }
    json!({ "m.login.terms": { "policies": policies } })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        name: Option<String>,
    }

    #[test]
    fn the_hash_covers_everything_but_auth() {
        let parse = |text: &str| UiaBody::<Body>::parse(text.as_bytes()).unwrap();
        let plain = parse(r#"{"name":"x","extra":[1]}"#);
        let with_auth = parse(r#"{"extra":[1],"auth":{"type":"m.login.dummy"},"name":"x"}"#);
        assert_eq!(plain.request, with_auth.request);
        assert_eq!(
            (plain.body.name.as_deref(), with_auth.auth.unwrap().kind.as_deref()),
            (Some("x"), Some("m.login.dummy"))
        );
        assert_ne!(plain.request, parse(r#"{"name":"y","extra":[1]}"#).request);
    }

    #[test]
    fn bad_auth_is_bad_json() {
        for text in [r#"{"auth":1}"#, r#"{"auth":{"type":1}}"#, "[]", r#"{"name":1}"#] {
            let error = UiaBody::<Body>::parse(text.as_bytes()).err().unwrap();
            assert_eq!(error.errcode(), "M_BAD_JSON", "{text}");
        }
    }

    #[test]
    fn terms_are_described_by_document_and_language() {
        let document = |language: &str| Terms {
            id: "privacy".to_owned(),
            version: "1".to_owned(),
            language: language.to_owned(),
            name: format!("Privacy ({language})"),
            url: format!("https://example.org/{language}"),
        };
        let terms = [document("en"), document("fr")];
        let policy = &params(&terms)["m.login.terms"]["policies"]["privacy"];
        assert_eq!((&policy["version"], &policy["fr"]["name"]), (&json!("1"), &json!("Privacy (fr)")));
        assert_eq!(with_terms(vec![vec![Stage::Dummy]], &terms), [vec![Stage::Terms, Stage::Dummy]]);
        assert_eq!(with_terms(vec![vec![Stage::Dummy]], &[]), [vec![Stage::Dummy]]);
    }
}
