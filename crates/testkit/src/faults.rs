//! What a simulated network does to messages: every bad thing is a field of [`Faults`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use myelin_core::Env;
use ruma::{OwnedServerName, ServerName};

use crate::below;

/// What happens on the way between two servers. A message is a request or an answer; each direction has its own luck.
/// Frequencies are per 1,000. The default is a network in which nothing goes wrong and nothing takes time.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Milliseconds that a message travels, evenly distributed.
    pub delay_ms: Range<u64>,
    /// So many messages are stragglers, which others overtake: concurrent requests are reordered.
    pub stragglers: usize,
    /// Milliseconds that a straggler travels.
    pub straggler_ms: Range<u64>,
    /// So many requests never arrive; whoever asked waits until its time is over.
    pub lost_requests: usize,
    /// So many answers never arrive, though the server has done what it was asked.
    pub lost_answers: usize,
    /// So many requests arrive a second time, later.
    pub duplicated: usize,
    /// So many requests are given up by a broken connection while the server works on them: it stops where it waits.
    pub hung_up: usize,
    /// So many bodies that are read as they come are cut off somewhere.
    pub cut_off: usize,
    /// Bytes that a connection carries per second.
    pub bytes_per_second: Option<u64>,
    /// Servers that take so much longer over every request.
    pub slow: BTreeMap<OwnedServerName, Duration>,
    /// Servers that answer everything but questions for their keys.
    pub keyless: BTreeSet<OwnedServerName>,
    /// Questions for keys travel as on a healthy network, whatever the rest of this says but for `keyless`.
    pub keys_are_spared: bool,
    /// (from, to): no message gets from the one to the other. A request is refused where its own way is cut; where only
    /// the way back is, the server does what it was asked and nobody hears of it.
    pub cuts: BTreeSet<(OwnedServerName, OwnedServerName)>,
    /// What is cut swallows messages instead of refusing them: whoever asks waits until its time is over.
    pub cuts_are_silent: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_ms: 0..1,
            stragglers: 0,
            straggler_ms: 0..1,
            lost_requests: 0,
            lost_answers: 0,
            duplicated: 0,
            hung_up: 0,
            cut_off: 0,
            bytes_per_second: None,
            slow: BTreeMap::new(),
            keyless: BTreeSet::new(),
            keys_are_spared: false,
            cuts: BTreeSet::new(),
            cuts_are_silent: false,
        }
    }
}

impl Faults {
    /// Nothing goes wrong, but messages take some milliseconds, so that concurrent ones meet in any order.
    pub fn healthy() -> Self {
        Self { delay_ms: 1..30, ..Self::default() }
    }

    /// A bit of everything but partitions.
    pub fn stormy() -> Self {
        Self {
            delay_ms: 1..200,
            stragglers: 50,
            straggler_ms: 1_000..20_000,
            lost_requests: 40,
            lost_answers: 40,
            duplicated: 30,
            hung_up: 20,
            cut_off: 50,
            bytes_per_second: Some(1_000_000),
            ..Self::default()
        }
    }

    /// Cuts every server of one group from every server of the other, both ways.
    pub fn cut(&mut self, some: &[&ServerName], others: &[&ServerName]) {
        for (one, other) in some.iter().flat_map(|one| others.iter().map(move |other| (*one, *other))) {
            self.cut_way(one, other);
            self.cut_way(other, one);
        }
    }

    /// Cuts one way only.
    pub fn cut_way(&mut self, from: &ServerName, to: &ServerName) {
        self.cuts.insert((from.to_owned(), to.to_owned()));
    }

    pub(crate) fn is_cut(&self, from: &ServerName, to: &ServerName) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    /// How long a message of so many bytes travels.
    pub(crate) fn journey(&self, env: &Env, bytes: usize) -> Duration {
        let range = if happens(env, self.stragglers) { &self.straggler_ms } else { &self.delay_ms };
        let carried = self.bytes_per_second.map_or(0, |rate| bytes as u64 * 1_000 / rate.max(1));
        Duration::from_millis(within(env, range) + carried)
    }
}

/// Whether something happens that happens so many times in 1,000. Takes nothing from chance if it never does.
pub(crate) fn happens(env: &Env, per_mille: usize) -> bool {
    per_mille > 0 && below(env, 1_000) < per_mille
}

fn within(env: &Env, range: &Range<u64>) -> u64 {
    let width = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    range.start + if width > 1 { below(env, width) as u64 } else { 0 }
}
