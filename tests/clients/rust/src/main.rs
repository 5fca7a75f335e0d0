//! matrix-sdk and its user-interface layer, as Element X stands on them, talk through Myelin: the room list and the
//! encrypted timeline over sliding sync, edits, reactions, unread counts, history, and a server that is killed meanwhile.

// The futures of the SDK are nested that deeply.
#![recursion_limit = "256"]

mod person;
mod server;

use anyhow::Context;
use matrix_sdk::ruma::{OwnedRoomId, events::room::message::RoomMessageEventContent};

use self::{
    person::{Conversation, Person},
    server::Server,
};

/// How many messages Alice edits.
const EDITS: usize = 1;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let outcome = scenario(&mut server).await;
    if outcome.is_err() {
        eprintln!("the end of the server's log:\n{}", server.last_lines());
    }
    outcome?;
    println!("matrix-sdk: everything as it should be");
    Ok(())
}

async fn scenario(server: &mut Server) -> anyhow::Result<()> {
    let alice = Person::register(&server.url(), "alice").await?;
    let bob = Person::register(&server.url(), "bob").await?;
    println!("  registered, synchronising");

    let room = meet(&alice, &bob).await?;
    println!("  invite seen in the room list, accepted");
    let (of_alice, of_bob) = (alice.conversation(&room).await?, bob.conversation(&room).await?);
    talk(&of_alice, &of_bob).await?;
    println!("  encrypted messages, an edit, a reaction");
    unread(&bob, &of_alice, &of_bob, &room).await?;
    println!("  unread counts");

    server.kill().await?;
    of_alice.say_unheard("while the server is away").await?;
    server.run().await?;
    of_bob.sees("while the server is away").await?;
    println!("  the server was killed and came back, nothing was lost");

    order_of_rooms(&alice, &room).await?;
    println!("  the room list is in the order of activity");
    history(&server.url(), &alice, &of_alice).await?;
    println!("  history");
    for person in [alice, bob] {
        person.stop().await;
    }
    Ok(())
}

async fn meet(alice: &Person, bob: &Person) -> anyhow::Result<OwnedRoomId> {
    let room = alice.client.create_dm(bob.id()).await?.room_id().to_owned();
    bob.until_listed(&room, "the invite", |room| room.state() == matrix_sdk::RoomState::Invited).await?;
    bob.client.join_room_by_id(&room).await?;
    bob.until_listed(&room, "the joined room", |room| room.state() == matrix_sdk::RoomState::Joined).await?;
    alice.until_listed(&room, "Bob's join", |room| room.joined_members_count() == 2).await?;
    Ok(room)
}

async fn talk(alice: &Conversation, bob: &Conversation) -> anyhow::Result<()> {
    alice.say("hello, Bob").await?;
    let hello = bob.sees("hello, Bob").await?;
    anyhow::ensure!(hello.encryption_info().is_some(), "the message was not encrypted");
    bob.say("hello, Alice").await?;
    alice.sees("hello, Alice").await?;

    let own = alice.sees("hello, Bob").await?;
    alice.edit(&own, "hello, dear Bob").await?;
    bob.sees("hello, dear Bob").await?;
    bob.react(&hello, "👋").await?;
    alice
        .until("the reaction", |item| item.content().reactions().is_some_and(|all| all.contains_key("👋")))
        .await?;
    Ok(())
}

async fn unread(
    bob: &Person,
    of_alice: &Conversation,
    of_bob: &Conversation,
    room: &OwnedRoomId,
) -> anyhow::Result<()> {
    of_bob.read().await?;
    bob.until_listed(room, "nothing unread", |room| {
        room.unread_notification_counts().notification_count == 0
    })
    .await?;
    of_alice.say("one").await?;
    of_alice.say("two").await?;
    bob.until_listed(room, "two unread", |room| room.unread_notification_counts().notification_count == 2)
        .await?;
    of_bob.sees("two").await?;
    of_bob.read().await?;
    bob.until_listed(room, "all read", |room| room.unread_notification_counts().notification_count == 0).await
}

/// A room in which something is said goes to the top.
async fn order_of_rooms(alice: &Person, room: &OwnedRoomId) -> anyhow::Result<()> {
    let later = alice.client.create_room(Default::default()).await?.room_id().to_owned();
    let quiet = alice.client.get_room(&later).context("an own room is known")?;
    quiet.send(RoomMessageEventContent::text_plain("up")).await?;
    alice.until_first(&later).await?;
    let speaking = alice.client.get_room(room).context("the room is known")?;
    speaking.send(RoomMessageEventContent::text_plain("up again")).await?;
    alice.until_first(room).await
}

/// A new client of the same person finds what was said before by paginating back: in its place, if not readable.
async fn history(url: &str, alice: &Person, of_alice: &Conversation) -> anyhow::Result<()> {
    for number in 0..40 {
        of_alice.say(&format!("number {number}")).await?;
    }
    let other = Person::login(url, "alice").await?;
    let conversation = other.conversation(of_alice.room_id()).await?;
    conversation.to_the_beginning().await?;
    // What it cannot read cannot be laid over what it edits, and stands for itself.
    let (found, wanted) = (conversation.messages().await, of_alice.messages().await + EDITS);
    anyhow::ensure!(found == wanted, "messages by paginating: {found} of {wanted}");
    anyhow::ensure!(alice.id() == other.id(), "the same person");
    other.stop().await;
    Ok(())
}
