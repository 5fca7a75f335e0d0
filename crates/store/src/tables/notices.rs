//! Records of server notices.

use myelin_core::RoomNid;
use serde::{Deserialize, Serialize};

use crate::codec::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRoomRecord {
    pub room: RoomNid,
}
impl Record for NoticeRoomRecord {}
