use serde_json::json;

use super::{password_of, text};
use crate::world::World;

const DEVICES: &str = "/_matrix/client/v3/devices";

fn ids(world: &World, token: &str) -> Vec<String> {
    let listed = world.get(DEVICES, Some(token)).ok();
    let devices = listed["devices"].as_array().unwrap();
    devices.iter().map(|device| text(device, "device_id").to_owned()).collect()
}

#[test]
fn devices_are_listed_and_named() {
    let world = World::new();
    world.user("alice");
    let login = world.log_in_as("alice", "PHONE");
    let token = text(&login, "access_token");
    assert!(ids(&world, token).contains(&"PHONE".to_owned()));
    let path = format!("{DEVICES}/PHONE");
    world.put(&path, Some(token), &json!({ "display_name": "my phone" })).ok();
    let device = world.get(&path, Some(token)).ok();
    assert_eq!((text(&device, "display_name"), device["last_seen_ts"].is_u64()), ("my phone", true));
    let long = json!({ "display_name": "x".repeat(256) });
    assert_eq!(world.put(&path, Some(token), &long).error(), (400, "M_INVALID_PARAM"));
    let none = format!("{DEVICES}/NONE");
    assert_eq!(world.get(&none, Some(token)).error(), (404, "M_NOT_FOUND"));
    assert_eq!(world.put(&none, Some(token), &json!({})).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn a_device_of_somebody_else_is_not_there() {
    let world = World::new();
    world.user("alice");
    world.log_in_as("alice", "PHONE");
    let bob = world.user("bob");
    assert_eq!(world.get(&format!("{DEVICES}/PHONE"), Some(&bob)).error(), (404, "M_NOT_FOUND"));
}

#[test]
fn a_device_is_deleted_with_the_password() {
    let world = World::new();
    let token = world.user("alice");
    let phone = world.log_in_as("alice", "PHONE");
    let path = format!("{DEVICES}/PHONE");
    let challenge = world.delete(&path, &token, &json!({}));
    assert_eq!(challenge.status, 401);
    let mut auth = password_of("alice");
    auth["session"] = challenge.json["session"].clone();
    let elsewhere = world.delete(&format!("{DEVICES}/OTHER"), &token, &json!({ "auth": auth }));
    assert_eq!(elsewhere.error(), (403, "M_FORBIDDEN"), "the session is for another device");
    world.delete(&path, &token, &json!({ "auth": auth })).ok();
    assert_eq!(world.whoami(text(&phone, "access_token")).error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(ids(&world, &token).len(), 1);
    world.delete(&path, &token, &json!({ "auth": password_of("alice") })).ok();
}

#[test]
fn an_empty_body_asks_for_authentication() {
    let world = World::new();
    let token = world.user("alice");
    let answer = world.request(http::Method::DELETE, &format!("{DEVICES}/X"), Some(&token), "");
    assert_eq!((answer.status.as_u16(), answer.json["session"].is_string()), (401, true));
}

#[test]
fn many_devices_are_deleted_at_once() {
    let world = World::new();
    let token = world.user("alice");
    for device in ["A", "B", "C"] {
        world.log_in_as("alice", device);
    }
    let path = "/_matrix/client/v3/delete_devices";
    let body = json!({ "devices": ["A", "C", "NONE"], "auth": password_of("alice") });
    world.post(path, Some(&token), &body).ok();
    let left = ids(&world, &token);
    assert!(left.len() == 2 && left.contains(&"B".to_owned()), "{left:?}");
    assert_eq!(world.post(path, Some(&token), &json!({})).error(), (400, "M_BAD_JSON"));
    let many = json!({ "devices": vec!["X"; 1001] });
    assert_eq!(world.post(path, Some(&token), &many).error(), (400, "M_INVALID_PARAM"));
}
