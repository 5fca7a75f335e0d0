//! Rooms that come from elsewhere, and what other servers want of rooms that are here: both sides of the handshakes
//! (Server-Server API, "Joining Rooms", "Knocking upon a room", "Inviting to a room", "Leaving Rooms").
//!
//! Must not know: networks; what was brought over one comes in verified.

mod accept;
mod adopt;
mod answer;
mod complete;
mod completion;
mod invitation;
mod judge;
mod known;
mod left_out;
mod outside;
mod stripped;
mod template;
mod third_party;
mod unheard;

pub use self::{
    accept::Taken,
    adopt::{Adoption, Partial},
    answer::JoinAnswer,
    complete::ProtoEvent,
    completion::{Completion, Given},
    invitation::Invitation,
    left_out::{Beside, LeftOut},
    outside::Outside,
    template::Template,
    third_party::ThirdPartyInvite,
};
