//! Accounts, sessions, devices, administration.

use http::Method;
use serde_json::json;

use super::{
    super::{
        call::Call,
        place::{PASSWORD, Place, text},
    },
    Row,
};

const REGISTERED_BY_MAIL: &str = "as specified for a server without mail";

pub const ROWS: &[Row] = &[
    // Registration.
    ("register", |at| {
        let body = json!({
            "username": "carol", "password": PASSWORD, "device_id": "PHONE", "initial_device_display_name": "Phone",
            "inhibit_login": false, "refresh_token": true, "auth": { "type": "m.login.dummy" },
        });
        at.call().by_nobody().json(body)
    }),
    ("checkUsernameAvailability", |at| at.call().by_nobody().query("username", "carol")),
    ("registrationTokenValidity", |at| at.call().by_nobody().query("token", "unknown")),
    ("requestTokenToRegisterEmail", |at| by_mail(at)),
    ("requestTokenToRegisterMSISDN", |at| by_phone(at)),
    ("requestTokenToResetPasswordEmail", |at| by_mail(at)),
    ("requestTokenToResetPasswordMSISDN", |at| by_phone(at)),
    ("requestTokenTo3PIDEmail", |at| by_mail(at)),
    ("requestTokenTo3PIDMSISDN", |at| by_phone(at)),
    // Logging in and out.
    ("getLoginFlows", |at| at.call().by_nobody()),
    ("login", |at| {
        let mut body = at.password("alice");
        body["device_id"] = json!("PHONE");
        body["initial_device_display_name"] = json!("Phone");
        body["refresh_token"] = json!(true);
        at.call().by_nobody().json(body)
    }),
    ("generateLoginToken", |at| at.call().json(json!({ "auth": at.password("alice") }))),
    ("refresh", |at| {
        let mut body = at.password("alice");
        body["refresh_token"] = json!(true);
        let session = at.does(&at.alice, Method::POST, "v3/login", body);
        at.call().by_nobody().json(json!({ "refresh_token": session["refresh_token"] }))
    }),
    ("logout", Place::call),
    ("logout_all", Place::call),
    ("redirectToSSO", |at| {
        let note = "as specified for a server without single sign-on";
        at.call().by_nobody().query("redirectUrl", "https://app.test/").refused(404, "M_UNRECOGNIZED", note)
    }),
    ("redirectToIdP", |at| {
        let note = "as specified for a server without single sign-on";
        let call = at.call().by_nobody().path("idpId", "provider").query("redirectUrl", "https://app.test/");
        call.refused(404, "M_NOT_FOUND", note)
    }),
    ("getAuthMetadata", |at| {
        let note = "as specified for a server without OAuth 2.0";
        at.call().by_nobody().refused(404, "M_UNRECOGNIZED", note)
    }),
    ("getTokenOwner", Place::call),
    // The account.
    ("changePassword", |at| {
        let body = json!({ "new_password": "another long password", "logout_devices": true, "auth": at.password("alice") });
        at.call().json(body)
    }),
    ("deactivateAccount", |at| at.call().json(json!({ "auth": at.password("alice"), "erase": true }))),
    ("getAccount3PIDs", Place::call),
    ("post3PIDs", |at| {
        let creds = json!({ "client_secret": "secret", "id_server": "id.test", "id_access_token": "token", "sid": "1" });
        at.call().json(json!({ "three_pid_creds": creds })).refused(
            403,
            "M_THREEPID_AUTH_FAILED",
            "refused: nothing was validated",
        )
    }),
    ("add3PID", |at| {
        let body = json!({ "client_secret": "secret", "sid": "1", "auth": at.password("alice") });
        at.call().json(body).refused(403, "M_THREEPID_AUTH_FAILED", "refused: nothing was validated")
    }),
    ("bind3PID", |at| {
        let body = json!({ "client_secret": "secret", "id_server": "id.test", "id_access_token": "token", "sid": "1" });
        at.call().json(body).refused(400, "M_SERVER_NOT_TRUSTED", "refused: no identity server is trusted")
    }),
    ("delete3pidFromAccount", |at| {
        at.call().json(json!({ "medium": "email", "address": "alice@mail.test" }))
    }),
    ("unbind3pidFromAccount", |at| {
        at.call().json(json!({ "medium": "email", "address": "alice@mail.test" }))
    }),
    ("requestOpenIdToken", |at| at.call().json(json!({}))),
    // Devices.
    ("getDevices", Place::call),
    ("getDevice", Place::call),
    ("updateDevice", |at| at.call().json(json!({ "display_name": "Phone" }))),
    ("deleteDevice", |at| {
        let other = at.logs_in("alice").device;
        at.call().path("deviceId", &other).json(json!({ "auth": at.password("alice") }))
    }),
    ("deleteDevices", |at| {
        let other = at.logs_in("alice").device;
        at.call().json(json!({ "devices": [other], "auth": at.password("alice") }))
    }),
    // What is served.
    ("getVersions", |at| at.call().by_nobody()),
    ("getCapabilities", Place::call),
    ("getWellknown", |at| at.call().by_nobody().refused(404, "M_NOT_FOUND", UNCONFIGURED)),
    ("getWellknownSupport", |at| at.call().by_nobody().refused(404, "M_NOT_FOUND", UNCONFIGURED)),
    ("getWellknownPolicy", |at| {
        at.call().by_nobody().refused(
            404,
            "M_NOT_FOUND",
            "as specified for a server that is no policy server",
        )
    }),
    ("getTurnServer", |at| at.call().refused(404, "M_NOT_FOUND", UNCONFIGURED)),
    // Administration.
    ("getWhoIs", Place::call),
    ("getAdminSuspendUser", |at| administration(at)),
    ("setAdminSuspendUser", |at| administration(at).json(json!({ "suspended": true }))),
    ("getAdminLockUser", |at| administration(at)),
    ("setAdminLockUser", |at| administration(at).json(json!({ "locked": true }))),
];

const UNCONFIGURED: &str = "as specified for a server on which it is not configured";

fn by_mail(at: &Place) -> Call {
    let body = json!({ "client_secret": "secret", "email": "carol@mail.test", "send_attempt": 1 });
    at.call().by_nobody().json(body).refused(403, "M_THREEPID_DENIED", REGISTERED_BY_MAIL)
}

fn by_phone(at: &Place) -> Call {
    let body = json!({ "client_secret": "secret", "country": "GB", "phone_number": "07700900001", "send_attempt": 1 });
    let note = "as specified for a server without a gateway to telephones";
    at.call().by_nobody().json(body).refused(403, "M_THREEPID_DENIED", note)
}

/// Of Bob, by an administrator.
fn administration(at: &Place) -> Call {
    at.call_of(&at.administrator()).path("userId", &text(&json!(at.bob.id)))
}
