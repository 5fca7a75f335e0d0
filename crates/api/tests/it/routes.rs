//! Every operation that is to be there answers for itself.

use http::Method;

use crate::world::World;

/// `(file of the specification's data/api/client-server, or proposal, its operations)`.
pub const FAMILIES: [(&str, &[&str]); 78] = [
    (
        "account-data",
        &[
            "PUT /_matrix/client/v3/user/{userId}/account_data/{type}",
            "GET /_matrix/client/v3/user/{userId}/account_data/{type}",
            "PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}",
            "GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}",
        ],
    ),
    ("account_deactivation", &["POST /_matrix/client/v3/account/deactivate"]),
    (
        "admin",
        &[
            "GET /_matrix/client/v3/admin/whois/{userId}",
            "GET /_matrix/client/v1/admin/suspend/{userId}",
            "PUT /_matrix/client/v1/admin/suspend/{userId}",
            "GET /_matrix/client/v1/admin/lock/{userId}",
            "PUT /_matrix/client/v1/admin/lock/{userId}",
        ],
    ),
    (
        "administrative_contact",
        &[
            "GET /_matrix/client/v3/account/3pid",
            "POST /_matrix/client/v3/account/3pid",
            "POST /_matrix/client/v3/account/3pid/add",
            "POST /_matrix/client/v3/account/3pid/bind",
            "POST /_matrix/client/v3/account/3pid/delete",
            "POST /_matrix/client/v3/account/3pid/unbind",
            "POST /_matrix/client/v3/account/3pid/email/requestToken",
            "POST /_matrix/client/v3/account/3pid/msisdn/requestToken",
        ],
    ),
    (
        "authed-content-repo",
        &[
            "GET /_matrix/client/v1/media/config",
            "GET /_matrix/client/v1/media/download/{serverName}/{mediaId}",
            "GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}",
            "GET /_matrix/client/v1/media/preview_url",
            "GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}",
        ],
    ),
    ("appservice_room_directory", &["PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}"]),
    ("appservice_ping", &["POST /_matrix/client/v1/appservice/{appserviceId}/ping"]),
    (
        "banning",
        &["POST /_matrix/client/v3/rooms/{roomId}/ban", "POST /_matrix/client/v3/rooms/{roomId}/unban"],
    ),
    ("capabilities", &["GET /_matrix/client/v3/capabilities"]),
    (
        "content-repo",
        &[
            "POST /_matrix/media/v3/upload",
            "PUT /_matrix/media/v3/upload/{serverName}/{mediaId}",
            "POST /_matrix/media/v1/create",
            "GET /_matrix/media/v3/config",
            "GET /_matrix/media/v3/download/{serverName}/{mediaId}",
            "GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}",
            "GET /_matrix/media/v3/preview_url",
            "GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}",
        ],
    ),
    ("create_room", &["POST /_matrix/client/v3/createRoom"]),
    (
        "cross_signing",
        &[
            "POST /_matrix/client/v3/keys/device_signing/upload",
            "POST /_matrix/client/v3/keys/signatures/upload",
        ],
    ),
    (
        "key_backup",
        &[
            "POST /_matrix/client/v3/room_keys/version",
            "GET /_matrix/client/v3/room_keys/version",
            "GET /_matrix/client/v3/room_keys/version/{version}",
            "PUT /_matrix/client/v3/room_keys/version/{version}",
            "DELETE /_matrix/client/v3/room_keys/version/{version}",
            "GET /_matrix/client/v3/room_keys/keys",
            "PUT /_matrix/client/v3/room_keys/keys",
            "DELETE /_matrix/client/v3/room_keys/keys",
            "GET /_matrix/client/v3/room_keys/keys/{roomId}",
            "PUT /_matrix/client/v3/room_keys/keys/{roomId}",
            "DELETE /_matrix/client/v3/room_keys/keys/{roomId}",
            "GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}",
            "PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}",
            "DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}",
        ],
    ),
    (
        "keys",
        &[
            "POST /_matrix/client/v3/keys/upload",
            "POST /_matrix/client/v3/keys/query",
            "POST /_matrix/client/v3/keys/claim",
            "GET /_matrix/client/v3/keys/changes",
        ],
    ),
    ("to_device", &["PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}"]),
    (
        "device_management",
        &[
            "GET /_matrix/client/v3/devices",
            "GET /_matrix/client/v3/devices/{deviceId}",
            "PUT /_matrix/client/v3/devices/{deviceId}",
            "DELETE /_matrix/client/v3/devices/{deviceId}",
            "POST /_matrix/client/v3/delete_devices",
        ],
    ),
    (
        "directory",
        &[
            "PUT /_matrix/client/v3/directory/room/{roomAlias}",
            "GET /_matrix/client/v3/directory/room/{roomAlias}",
            "DELETE /_matrix/client/v3/directory/room/{roomAlias}",
            "GET /_matrix/client/v3/rooms/{roomId}/aliases",
        ],
    ),
    ("event_context", &["GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}"]),
    (
        "filter",
        &[
            "POST /_matrix/client/v3/user/{userId}/filter",
            "GET /_matrix/client/v3/user/{userId}/filter/{filterId}",
        ],
    ),
    ("inviting", &["POST /_matrix/client/v3/rooms/{roomId}/invite"]),
    (
        "joining",
        &["POST /_matrix/client/v3/rooms/{roomId}/join", "POST /_matrix/client/v3/join/{roomIdOrAlias}"],
    ),
    ("kicking", &["POST /_matrix/client/v3/rooms/{roomId}/kick"]),
    ("knocking", &["POST /_matrix/client/v3/knock/{roomIdOrAlias}"]),
    (
        "leaving",
        &["POST /_matrix/client/v3/rooms/{roomId}/leave", "POST /_matrix/client/v3/rooms/{roomId}/forget"],
    ),
    ("list_joined_rooms", &["GET /_matrix/client/v3/joined_rooms"]),
    (
        "list_public_rooms",
        &[
            "GET /_matrix/client/v3/directory/list/room/{roomId}",
            "PUT /_matrix/client/v3/directory/list/room/{roomId}",
            "GET /_matrix/client/v3/publicRooms",
            "POST /_matrix/client/v3/publicRooms",
        ],
    ),
    ("login", &["GET /_matrix/client/v3/login", "POST /_matrix/client/v3/login"]),
    ("login_token", &["POST /_matrix/client/v1/login/get_token"]),
    ("logout", &["POST /_matrix/client/v3/logout", "POST /_matrix/client/v3/logout/all"]),
    ("message_pagination", &["GET /_matrix/client/v3/rooms/{roomId}/messages"]),
    ("mutual_rooms", &["GET /_matrix/client/v1/mutual_rooms"]),
    ("notifications", &["GET /_matrix/client/v3/notifications"]),
    ("openid", &["POST /_matrix/client/v3/user/{userId}/openid/request_token"]),
    (
        "password_management",
        &[
            "POST /_matrix/client/v3/account/password",
            "POST /_matrix/client/v3/account/password/email/requestToken",
            "POST /_matrix/client/v3/account/password/msisdn/requestToken",
        ],
    ),
    (
        "old_sync",
        &[
            "GET /_matrix/client/v3/events",
            "GET /_matrix/client/v3/events/{eventId}",
            "GET /_matrix/client/v3/initialSync",
        ],
    ),
    ("peeking_events", &["GET /_matrix/client/v3/events"]),
    ("policy_server", &["GET /.well-known/matrix/policy_server"]),
    (
        "presence",
        &[
            "PUT /_matrix/client/v3/presence/{userId}/status",
            "GET /_matrix/client/v3/presence/{userId}/status",
        ],
    ),
    (
        "profile",
        &[
            "PUT /_matrix/client/v3/profile/{userId}/{keyName}",
            "GET /_matrix/client/v3/profile/{userId}/{keyName}",
            "DELETE /_matrix/client/v3/profile/{userId}/{keyName}",
            "GET /_matrix/client/v3/profile/{userId}",
        ],
    ),
    ("pusher", &["GET /_matrix/client/v3/pushers", "POST /_matrix/client/v3/pushers/set"]),
    (
        "pushrules",
        &[
            "GET /_matrix/client/v3/pushrules/",
            "GET /_matrix/client/v3/pushrules/global/",
            "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}",
            "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}",
            "DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}",
            "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions",
            "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions",
            "GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled",
            "PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled",
        ],
    ),
    ("read_markers", &["POST /_matrix/client/v3/rooms/{roomId}/read_markers"]),
    ("receipts", &["POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}"]),
    ("redaction", &["PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}"]),
    ("refresh", &["POST /_matrix/client/v3/refresh"]),
    (
        "registration",
        &[
            "POST /_matrix/client/v3/register",
            "POST /_matrix/client/v3/register/email/requestToken",
            "POST /_matrix/client/v3/register/msisdn/requestToken",
            "GET /_matrix/client/v3/register/available",
        ],
    ),
    ("registration_tokens", &["GET /_matrix/client/v1/register/m.login.registration_token/validity"]),
    (
        "relations",
        &[
            "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}",
            "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}",
            "GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}",
        ],
    ),
    (
        "report_content",
        &[
            "POST /_matrix/client/v3/rooms/{roomId}/report",
            "POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}",
            "POST /_matrix/client/v3/users/{userId}/report",
        ],
    ),
    ("room_event_by_timestamp", &["GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event"]),
    ("room_initial_sync", &["GET /_matrix/client/v3/rooms/{roomId}/initialSync"]),
    ("room_send", &["PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}"]),
    ("room_state", &["PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}"]),
    ("room_summary", &["GET /_matrix/client/v1/room_summary/{roomIdOrAlias}"]),
    ("room_upgrades", &["POST /_matrix/client/v3/rooms/{roomId}/upgrade"]),
    (
        "rooms",
        &[
            "GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}",
            "GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}",
            "GET /_matrix/client/v3/rooms/{roomId}/state",
            "GET /_matrix/client/v3/rooms/{roomId}/members",
            "GET /_matrix/client/v3/rooms/{roomId}/joined_members",
        ],
    ),
    ("space_hierarchy", &["GET /_matrix/client/v1/rooms/{roomId}/hierarchy"]),
    ("support", &["GET /.well-known/matrix/support"]),
    ("sync", &["GET /_matrix/client/v3/sync"]),
    (
        "tags",
        &[
            "GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags",
            "PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}",
            "DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}",
        ],
    ),
    (
        "third_party_lookup",
        &[
            "GET /_matrix/client/v3/thirdparty/location",
            "GET /_matrix/client/v3/thirdparty/location/{protocol}",
            "GET /_matrix/client/v3/thirdparty/protocol/{protocol}",
            "GET /_matrix/client/v3/thirdparty/protocols",
            "GET /_matrix/client/v3/thirdparty/user",
            "GET /_matrix/client/v3/thirdparty/user/{protocol}",
        ],
    ),
    ("third_party_membership", &["POST /_matrix/client/v3/rooms/{roomId}/invite"]),
    ("threads_list", &["GET /_matrix/client/v1/rooms/{roomId}/threads"]),
    ("typing", &["PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}"]),
    ("search", &["POST /_matrix/client/v3/search"]),
    ("users", &["POST /_matrix/client/v3/user_directory/search"]),
    ("versions", &["GET /_matrix/client/versions"]),
    ("voip", &["GET /_matrix/client/v3/voip/turnServer"]),
    ("wellknown", &["GET /.well-known/matrix/client"]),
    ("whoami", &["GET /_matrix/client/v3/account/whoami"]),
    (
        "MSC3814",
        &[
            "GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
            "PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
            "DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
            "POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events",
        ],
    ),
    (
        "MSC4108",
        &[
            "POST /_matrix/client/unstable/org.matrix.msc4108/rendezvous",
            "GET /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}",
            "PUT /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}",
            "DELETE /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{id}",
        ],
    ),
    (
        "MSC4140",
        &[
            "PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}",
            "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events",
            "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}",
            "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}",
            "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}/{action}",
        ],
    ),
    ("MSC4143", &["GET /_matrix/client/unstable/org.matrix.msc4143/rtc/transports"]),
    (
        "MSC4186",
        &["POST /_matrix/client/v4/sync", "POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync"],
    ),
    (
        "MSC4306",
        &[
            "GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription",
            "PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription",
            "DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription",
        ],
    ),
    ("MSC4308", &["GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions"]),
    (
        "MSC4388",
        &[
            "GET /_matrix/client/unstable/io.element.msc4388/rendezvous",
            "POST /_matrix/client/unstable/io.element.msc4388/rendezvous",
            "GET /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}",
            "PUT /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}",
            "DELETE /_matrix/client/unstable/io.element.msc4388/rendezvous/{id}",
        ],
    ),
];

#[test]
fn every_operation_is_served() {
    let world = World::new();
    let mut unserved = Vec::new();
    for operation in FAMILIES.iter().flat_map(|(_, operations)| *operations) {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = filled_in(path);
        let answer = world.request(method.parse::<Method>().unwrap(), &path, None, "{}");
        if answer.json["errcode"] == "M_UNRECOGNIZED" {
            unserved.push(*operation);
        }
    }
    assert!(unserved.is_empty(), "unserved:\n{}", unserved.join("\n"));
}

/// Samples for the parameters.
pub fn filled_in(path: &str) -> String {
    let samples = [
        ("{userId}", "@alice:localhost"),
        ("{roomId}", "!room:localhost"),
        ("{roomAlias}", "%23alias:localhost"),
        ("{roomIdOrAlias}", "!room:localhost"),
        ("{eventId}", "$event"),
        ("{eventType}", "m.room.message"),
        ("{stateKey}", "key"),
        ("{txnId}", "1"),
        ("{type}", "org.example.data"),
        ("{deviceId}", "DEVICE"),
        ("{filterId}", "1"),
        ("{keyName}", "displayname"),
        ("{receiptType}", "m.read"),
        ("{relType}", "m.thread"),
        ("{tag}", "u.work"),
        ("{version}", "1"),
        ("{sessionId}", "session"),
        ("{serverName}", "localhost"),
        ("{mediaId}", "media"),
        ("{fileName}", "file.txt"),
        ("{kind}", "override"),
        ("{ruleId}", "rule"),
        ("{protocol}", "irc"),
        ("{appserviceId}", "bridge"),
        ("{networkId}", "irc"),
        ("{id}", "session"),
        ("{delayId}", "delay"),
        ("{action}", "send"),
    ];
    let path = samples.iter().fold(path.to_owned(), |path, (name, sample)| path.replace(name, sample));
    assert!(!path.contains('{'), "no sample for {path}");
    path
}
