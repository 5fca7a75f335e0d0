//! Somebody at a client that is made like Element X: a sync service, a room list, timelines.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::{StreamExt, pin_mut};
use matrix_sdk::{
    Client, Room,
    encryption::EncryptionSettings,
    room::edit::EditedContent,
    ruma::{
        OwnedRoomId, RoomId, UserId,
        api::client::{
            account::register::v3::Request as Registration,
            receipt::create_receipt::v3::ReceiptType,
            uiaa::{AuthData, Dummy},
        },
        events::room::message::{RoomMessageEventContent, RoomMessageEventContentWithoutRelation},
    },
};
use matrix_sdk_ui::eyeball_im::Vector;
use matrix_sdk_ui::{
    room_list_service::{RoomListItem, filters},
    sync_service::SyncService,
    timeline::{EventTimelineItem, RoomExt, Timeline},
};

const PASSWORD: &str = "correct horse battery staple";
const WAIT_MAX: Duration = Duration::from_secs(120);
const PAGE: u16 = 10;
const ROOMS_MAX: usize = 100;

pub struct Person {
    pub client: Client,
    sync: SyncService,
}

impl Person {
    pub async fn register(url: &str, name: &str) -> anyhow::Result<Self> {
        let mut registration = Registration::new();
        registration.username = Some(name.to_owned());
        registration.password = Some(PASSWORD.to_owned());
        registration.inhibit_login = true;
        registration.auth = Some(AuthData::Dummy(Dummy::new()));
        Client::new(url.parse()?).await?.matrix_auth().register(registration).await?;
        Self::login(url, name).await
    }

    pub async fn login(url: &str, name: &str) -> anyhow::Result<Self> {
        let settings = EncryptionSettings { auto_enable_cross_signing: true, ..Default::default() };
        let client = Client::builder().homeserver_url(url).with_encryption_settings(settings).build().await?;
        client.matrix_auth().login_username(name, PASSWORD).initial_device_display_name("Rust").await?;
        client.event_cache().subscribe()?;
        let sync = SyncService::builder(client.clone()).with_offline_mode().build().await?;
        sync.start().await;
        Ok(Self { client, sync })
    }

    pub fn id(&self) -> &UserId {
        self.client.user_id().expect("logged in")
    }

    pub async fn stop(self) {
        self.sync.stop().await;
    }

    /// Waits until the room list shows `room` such that `condition` holds.
    pub async fn until_listed(
        &self,
        room: &RoomId,
        what: &str,
        condition: impl Fn(&Room) -> bool,
    ) -> anyhow::Result<()> {
        let shown =
            |list: &Vector<RoomListItem>| list.iter().any(|item| item.room_id() == room && condition(item));
        self.until_list(what, shown).await
    }

    /// Waits until `room` is the first of the list.
    pub async fn until_first(&self, room: &RoomId) -> anyhow::Result<()> {
        self.until_list("the room on top", |list| list.front().is_some_and(|item| item.room_id() == room))
            .await
    }

    async fn until_list(
        &self,
        what: &str,
        condition: impl Fn(&Vector<RoomListItem>) -> bool,
    ) -> anyhow::Result<()> {
        let all = self.sync.room_list_service().all_rooms().await?;
        let (changes, controller) = all.entries_with_dynamic_adapters(ROOMS_MAX);
        controller.set_filter(Box::new(filters::new_filter_non_left()));
        pin_mut!(changes);
        let mut list = Vector::new();
        let found = async {
            while let Some(diffs) = changes.next().await {
                for diff in diffs {
                    diff.apply(&mut list);
                }
                if condition(&list) {
                    return Ok(());
                }
            }
            anyhow::bail!("the room list ended")
        };
        tokio::time::timeout(WAIT_MAX, found)
            .await
            .with_context(|| format!("{}: waited for {what}", self.id()))?
    }

    pub async fn conversation(&self, room: &RoomId) -> anyhow::Result<Conversation> {
        let listed = |listed: &Room| listed.state() == matrix_sdk::RoomState::Joined;
        self.until_listed(room, "the room", listed).await?;
        self.sync.room_list_service().subscribe_to_rooms(&[room]).await;
        let room = self.client.get_room(room).context("a listed room is known")?;
        Ok(Conversation { timeline: Arc::new(room.timeline().await?), room: room.room_id().to_owned() })
    }
}

/// A room that is open on the screen.
pub struct Conversation {
    room: OwnedRoomId,
    timeline: Arc<Timeline>,
}

impl Conversation {
    pub fn room_id(&self) -> &RoomId {
        &self.room
    }

    /// Says it and waits until the server has it.
    pub async fn say(&self, body: &str) -> anyhow::Result<()> {
        self.say_unheard(body).await?;
        self.until(body, |item| body_of(item) == Some(body) && item.event_id().is_some()).await.map(drop)
    }

    /// Says it into the queue of what is to be sent.
    pub async fn say_unheard(&self, body: &str) -> anyhow::Result<()> {
        self.timeline.send(RoomMessageEventContent::text_plain(body).into()).await?;
        Ok(())
    }

    pub async fn sees(&self, body: &str) -> anyhow::Result<EventTimelineItem> {
        self.until(body, |item| body_of(item) == Some(body) && item.event_id().is_some()).await
    }

    pub async fn edit(&self, item: &EventTimelineItem, body: &str) -> anyhow::Result<()> {
        let content = RoomMessageEventContentWithoutRelation::text_plain(body);
        Ok(self.timeline.edit(&item.identifier(), EditedContent::RoomMessage(content)).await?)
    }

    pub async fn react(&self, item: &EventTimelineItem, key: &str) -> anyhow::Result<()> {
        self.timeline.toggle_reaction(&item.identifier(), key).await?;
        Ok(())
    }

    /// Sends a receipt for the newest event.
    pub async fn read(&self) -> anyhow::Result<()> {
        self.timeline.mark_as_read(ReceiptType::Read).await?;
        Ok(())
    }

    pub async fn to_the_beginning(&self) -> anyhow::Result<()> {
        while !self.timeline.paginate_backwards(PAGE).await? {}
        Ok(())
    }

    /// How many messages the timeline has, readable or not.
    pub async fn messages(&self) -> usize {
        let items = self.timeline.items().await;
        let events = items.iter().filter_map(|item| item.as_event());
        events.filter(|event| event.content().is_message() || event.content().is_unable_to_decrypt()).count()
    }

    /// Waits until the timeline has an event such that `condition` holds.
    pub async fn until(
        &self,
        what: &str,
        condition: impl Fn(&EventTimelineItem) -> bool,
    ) -> anyhow::Result<EventTimelineItem> {
        let (mut items, changes) = self.timeline.subscribe().await;
        pin_mut!(changes);
        let found = async {
            loop {
                if let Some(found) =
                    items.iter().rev().filter_map(|item| item.as_event()).find(|item| condition(item))
                {
                    return Ok(found.clone());
                }
                let Some(diffs) = changes.next().await else { anyhow::bail!("the timeline ended") };
                for diff in diffs {
                    diff.apply(&mut items);
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, found).await.with_context(|| format!("waited for '{what}'"))?
    }
}

fn body_of(item: &EventTimelineItem) -> Option<&str> {
    item.content().as_message().map(|message| message.body())
}
