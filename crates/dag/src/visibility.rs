//! Who may see an event (Client-Server API, "Room history visibility").

use ruma::events::room::{history_visibility::HistoryVisibility, member::MembershipState};

/// Whether a user may see an event.
///
/// - `history_visibility`: as of the state before the event (`shared` if there is none or it is not understood).
/// - `membership_before`: the user's membership in that state; `None` is the same as `leave`.
/// - `membership_after`: the membership which the event gives the user, for the user's own `m.room.member` events;
///   `None` for all other events.
/// - `joined_later`: whether the user joined at any point after the event.
pub fn may_see(
    history_visibility: HistoryVisibility,
    membership_before: Option<MembershipState>,
    membership_after: Option<MembershipState>,
    joined_later: bool,
) -> bool {
    let allows = |membership: Option<MembershipState>| match (&history_visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, Some(MembershipState::Join)) => true,
        (HistoryVisibility::Invited, Some(MembershipState::Invite)) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        // `shared`, and whatever is not understood.
        _ => joined_later,
    };
    allows(membership_before) || allows(membership_after)
}

/// As [`may_see`] for an `m.room.history_visibility` event: either side of the change will do.
pub fn may_see_visibility_change(
    before: HistoryVisibility,
    after: HistoryVisibility,
    membership: Option<MembershipState>,
    joined_later: bool,
) -> bool {
    may_see(before, membership.clone(), None, joined_later) || may_see(after, membership, None, joined_later)
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use MembershipState::{Ban, Invite, Join, Knock, Leave};

    use super::*;

    #[test]
    fn the_table_of_the_specification() {
        // Per row: visibility, membership at the event, then whether it is seen without and with a later join.
        let table = [
            (WorldReadable, None, true, true),
            (WorldReadable, Some(Ban), true, true),
            (Shared, Some(Join), true, true),
            (Shared, Some(Invite), false, true),
            (Shared, Some(Leave), false, true),
            (Shared, None, false, true),
            (Invited, Some(Join), true, true),
            (Invited, Some(Invite), true, true),
            (Invited, Some(Knock), false, false),
            (Invited, Some(Leave), false, false),
            (Invited, None, false, false),
            (Joined, Some(Join), true, true),
            (Joined, Some(Invite), false, false),
            (Joined, Some(Leave), false, false),
            (Joined, None, false, false),
            (HistoryVisibility::from("org.example.odd"), None, false, true),
            (HistoryVisibility::from("org.example.odd"), Some(Join), true, true),
        ];
        for (visibility, membership, alone, with_join) in table {
            let see = |later| may_see(visibility.clone(), membership.clone(), None, later);
            assert_eq!((see(false), see(true)), (alone, with_join), "{visibility:?} {membership:?}");
        }
    }

    #[test]
    fn own_membership_events_count_on_both_sides() {
        assert!(may_see(Joined, None, Some(Join), false), "joining");
        assert!(may_see(Joined, Some(Join), Some(Leave), false), "leaving");
        assert!(may_see(Invited, Some(Leave), Some(Invite), false), "being invited");
        assert!(may_see(Invited, Some(Invite), Some(Leave), false), "declining");
        assert!(!may_see(Joined, Some(Leave), Some(Invite), false), "being invited where only joins count");
        assert!(!may_see(Shared, Some(Leave), Some(Ban), false), "being banned while away");
    }

    #[test]
    fn visibility_changes_are_seen_from_either_side() {
        assert!(may_see_visibility_change(WorldReadable, Joined, None, false));
        assert!(may_see_visibility_change(Joined, WorldReadable, None, false));
        assert!(may_see_visibility_change(Joined, Shared, None, true));
        assert!(!may_see_visibility_change(Joined, Invited, None, true));
    }
}
