//! What state resolution alone changes: the watch sees it, also where the state was fetched, and guests leave.

use myelin_dag::{NewEvent, Pdu, Verdict};
use myelin_store::tables::{AccountKind, Membership, STATE_RESETS, StateResetRecord};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use super::receiving::{Fork, remote};
use crate::{Placing, Received, Sender};

const MEMBER: &str = "m.room.member";

impl Fork {
    fn levels(&self, carol: i64) -> Value {
        let bob = remote("bob");
        json!({ "users": { self.alice.user_id.as_str(): 100, bob.as_str(): 100, remote("carol").as_str(): carol } })
    }

    /// Bob and Carol, who may ban.
    fn with_moderators() -> Self {
        let mut fork = Self::new(RoomVersionId::V11);
        fork.join("bob");
        fork.join("carol");
        fork.world.set(&fork.alice, &fork.room, "m.room.power_levels", "", fork.levels(50)).unwrap();
        fork
    }

    /// A member event at the end of the room that is not received.
    fn member(&mut self, sender: &str, of: &str, membership: &str) -> Pdu {
        let tip = self.tip();
        let content = json!({ "membership": membership });
        self.make(sender, MEMBER, Some(remote(of).as_str()), content, &[tip])
    }

    fn takes(&self, pdu: &Pdu) {
        assert_eq!(self.receive(pdu), Received::Stored(Verdict::Accepted));
    }

    /// What this server missed, beyond a gap: it is told a state with these events. Alice goes on after that.
    fn misses(&mut self, events: &[Pdu]) {
        let tip = self.tip();
        let said = self.make("bob", "m.room.message", None, json!({}), &[tip]);
        let message =
            NewEvent::message(remote("bob"), "m.room.message", &json!({ "at": "far end" })).unwrap();
        let far_end = self.make_by(message, said.auth_events.clone(), events.last().unwrap());
        events.iter().chain([&far_end]).for_each(|pdu| self.take_outlier(pdu));
        let snapshot = self.world.snapshot(&self.room);
        let nids: Vec<_> = snapshot.current_state.iter().map(|(_, nid)| nid).collect();
        let held = self.world.run(self.world.view.events.load_many(&nids)).unwrap().into_iter().flatten();
        let stays = |pdu: &Pdu| !events.iter().any(|new| new.state_key == pdu.state_key);
        let held = held.filter(|event| stays(&event.pdu)).map(|event| event.pdu.event_id.clone());
        let state: Vec<OwnedEventId> = held.chain(events.iter().map(|pdu| pdu.event_id.clone())).collect();
        let placing = self.world.rooms.place_outlier(snapshot.nid(), &far_end.event_id, &state);
        assert_eq!(self.world.run(placing).unwrap(), Placing::Placed);
        let next = self.make("bob", "m.room.message", None, json!({}), &[far_end.event_id]);
        self.takes(&next);
        self.world.say(&self.alice, &self.room, "I see").unwrap();
    }

    /// Bob takes Carol's power away beside all that came after `prev`: none of her bans since stands.
    fn demotes_carol(&mut self, prev: &OwnedEventId) {
        let (levels, prev) = (self.levels(0), std::slice::from_ref(prev));
        let demotion = self.make("bob", "m.room.power_levels", Some(""), levels, prev);
        self.takes(&demotion);
    }

    fn resets(&self) -> Vec<StateResetRecord> {
        let rows = self.world.run(self.world.view.store.read().all(&STATE_RESETS, 1_000)).unwrap();
        rows.into_iter().map(|(_, record)| record).collect()
    }
}

#[test]
fn each_of_many_that_are_undone_at_once_is_recorded() {
    const USERS: usize = 150;
    let mut fork = Fork::with_moderators();
    let name = |number: usize| format!("user{number}");
    let joins: Vec<_> = (0..USERS).map(|n| fork.member(&name(n), &name(n), "join")).collect();
    fork.misses(&joins);
    let before = fork.tip();
    for number in 0..USERS {
        let ban = fork.member("carol", &name(number), "ban");
        fork.takes(&ban);
    }
    assert_eq!(fork.resets(), []);
    fork.demotes_carol(&before);
    assert_eq!(fork.resets().len(), USERS);
}

#[test]
fn a_ban_that_was_fetched_is_not_undone_in_silence() {
    let mut fork = Fork::with_moderators();
    let join = fork.member("dave", "dave", "join");
    fork.misses(std::slice::from_ref(&join));
    let before = fork.tip();
    let ban = fork.member("carol", "dave", "ban");
    fork.misses(std::slice::from_ref(&ban));
    assert_eq!(fork.world.state(&fork.room, MEMBER, "@dave:remote"), Some(json!({ "membership": "ban" })));
    assert_eq!(fork.resets(), [], "the ban is news");
    fork.demotes_carol(&before);
    let resets = fork.resets();
    let [reset] = resets.as_slice() else { panic!("{resets:?}") };
    let nid = |pdu: &Pdu| Some(fork.world.event(&pdu.event_id).nid);
    assert_eq!((reset.before, reset.after), (nid(&ban), nid(&join)));
}

/// Carol has let them in, which she was not allowed to.
#[test]
fn guests_leave_where_resolution_shuts_them_out() {
    let mut fork = Fork::with_moderators();
    let guest = Sender { guest: true, ..fork.world.user("guest") };
    fork.world.has_account(&guest, AccountKind::Guest);
    let upkeep = crate::run_member_upkeep(fork.world.rooms.clone());
    fork.world.sim.env().spawner.spawn("upkeep", Box::pin(upkeep));
    let before = fork.tip();
    let access = json!({ "guest_access": "can_join" });
    let access = fork.make("carol", "m.room.guest_access", Some(""), access, std::slice::from_ref(&before));
    fork.takes(&access);
    fork.world.join(&guest, &fork.room).unwrap();
    fork.demotes_carol(&before);
    fork.world.run(fork.world.sim.env().clock.sleep(std::time::Duration::from_secs(1)));
    assert_eq!(fork.world.snapshot(&fork.room).membership(guest.user), Some(Membership::Leave));
}
