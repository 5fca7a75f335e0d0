//! What an operator does to a whole store: verify it, copy it (backup; moving between engines).
//!
//! Works on any backend, on a snapshot, while the server writes. What only the room rules know (hashes, the inside of
//! state nodes) comes in as [`Knowledge`].

mod copy;
mod pages;
mod verify;

pub use self::{
    copy::{Copied, copy},
    verify::{Finding, Knowledge, NoKnowledge, Report, StateNode, verify},
};

/// How far a long operation is. Steps have the names of tables or of what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub step: &'static str,
    /// From 1.
    pub step_number: usize,
    pub steps: usize,
    /// Rows done in this step.
    pub rows: u64,
}

/// Called often; cheap work only.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);
