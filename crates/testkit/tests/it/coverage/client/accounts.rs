//! Accounts, sessions, devices, administration.

use http::Method;
use serde_json::{Value, json};

use super::{
    super::{
        call::Call,
        place::{PASSWORD, Place, text},
        surroundings::{ADDRESS, IDENTITY_SERVER, OLD_IDENTITY_SERVERS},
    },
    Row,
};

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
    ("requestTokenToRegisterEmail", |at| by_mail(at, "carol@mail.test")),
    ("requestTokenToRegisterMSISDN", |at| by_phone(at)),
    ("requestTokenToResetPasswordEmail", |at| {
        at.adds_address(ADDRESS);
        by_mail(at, ADDRESS)
    }),
    ("requestTokenToResetPasswordMSISDN", |at| by_phone(at)),
    ("requestTokenTo3PIDEmail", |at| by_mail(at, ADDRESS)),
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
    ("getAccount3PIDs", |at| {
        at.adds_address(ADDRESS);
        at.call()
    }),
    ("post3PIDs", |at| {
        let call = at.call().json(json!({ "three_pid_creds": validated_there() }));
        call.lenient("without three_pid_creds.id_access_token", OLD_IDENTITY_SERVERS)
    }),
    ("add3PID", |at| {
        let session = at.proves(ADDRESS);
        let body = json!({ "client_secret": "secret", "sid": session, "auth": at.password("alice") });
        at.call().json(body)
    }),
    ("bind3PID", |at| {
        at.call().json(validated_there()).lenient("without id_access_token", OLD_IDENTITY_SERVERS)
    }),
    ("delete3pidFromAccount", |at| {
        at.adds_address(ADDRESS);
        bound(at)
    }),
    ("unbind3pidFromAccount", |at| bound(at)),
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
    ("getWellknown", |at| at.call().by_nobody()),
    ("getWellknownSupport", |at| at.call().by_nobody()),
    ("getWellknownPolicy", |at| at.call().by_nobody()),
    ("getTurnServer", Place::call),
    // Administration.
    ("getWhoIs", Place::call),
    ("getAdminSuspendUser", |at| administration(at)),
    ("setAdminSuspendUser", |at| administration(at).json(json!({ "suspended": true }))),
    ("getAdminLockUser", |at| administration(at)),
    ("setAdminLockUser", |at| administration(at).json(json!({ "locked": true }))),
];

fn by_mail(at: &Place, address: &str) -> Call {
    let body = json!({ "client_secret": "secret", "email": address, "send_attempt": 1 });
    at.call().by_nobody().json(body)
}

/// What binds an address that was validated at the identity server.
fn validated_there() -> Value {
    json!({ "client_secret": "secret", "id_server": IDENTITY_SERVER, "id_access_token": "token", "sid": "1" })
}

/// The address of Alice that an identity server knows.
fn bound(at: &Place) -> Call {
    at.does(&at.alice, Method::POST, "v3/account/3pid/bind", validated_there());
    at.call().json(json!({ "medium": "email", "address": ADDRESS, "id_server": IDENTITY_SERVER }))
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
