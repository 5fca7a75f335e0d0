//! The one suite that every backend passes. Each case starts on an empty store.
//!
//! A backend crate implements [`Harness`] in its tests and calls [`conformance_suite!`], which makes one `#[test]` per
//! case. Cases know nothing of the engine or its runtime.

pub mod commits;
pub mod crash;
pub mod readers;
pub mod reads;

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use myelin_core::UserNid;

use crate::{
    Store,
    backend::{Backend, RawBatch, RawRead, Stamped, Write},
    log::LogEntry,
    tables::TableId,
};

/// A store under test: one set of data that can be opened again and again.
pub trait Harness: Send + Sync {
    /// Opens the data. An earlier handle has been closed or dropped when this is called again.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Backend>>;

    /// Runs tasks at the same time, in parallel if the engine's runtime can, until all are done.
    fn run_all(&self, tasks: Vec<BoxFuture<'static, ()>>) -> BoxFuture<'_, ()> {
        join_all(tasks).map(drop).boxed()
    }
}

/// Expands to one `#[test]` per case; `$run` is called with the case and provides the harness:
/// `fn run(case: impl for<'a> FnOnce(&'a dyn Harness) -> BoxFuture<'a, ()>)`.
#[macro_export]
macro_rules! conformance_suite {
    ($run:path) => {
        $crate::conformance_suite! { $run;
            reads: gets_what_was_put,
            reads: multi_get_answers_in_order,
            reads: scans_agree_with_a_model_across_pages,
            reads: empty_ranges_are_empty,
            reads: keys_compare_bytewise,
            reads: prefixes_are_whole_components,
            reads: megabyte_values_survive,
            reads: oversized_rows_are_refused,
            commits: the_last_write_of_a_key_wins,
            commits: a_large_batch_is_one_commit,
            commits: preconditions_decide,
            commits: a_refused_batch_leaves_nothing,
            commits: one_of_many_creates_a_key,
            commits: counters_lose_no_increment,
            commits: pipelined_batches_see_each_other_in_order,
            commits: positions_are_dense_and_logged,
            commits: positions_are_stamped_into_keys_and_values,
            commits: positions_can_be_raised,
            commits: a_dropped_future_cancels_nothing,
            commits: nids_are_unique,
            readers: snapshots_are_consistent_across_tables,
            readers: later_reads_see_no_less,
            readers: waiting_for_a_position_wakes,
            readers: a_position_is_announced_after_its_rows_are_there,
            readers: reopening_keeps_everything,
            readers: closing_twice_is_harmless,
        }
    };
    ($run:path; $($module:ident: $case:ident,)+) => {$(
        #[test]
        fn $case() {
            $run(|harness| Box::pin($crate::conformance::$module::$case(harness)));
        }
    )+};
}

pub async fn open(harness: &dyn Harness) -> Store {
    Store::new(harness.open().await)
}

/// Some entry, for cases that only count positions.
pub fn sample_entry() -> LogEntry {
    LogEntry::Account { user: UserNid(1) }
}

/// A table for raw keys that mean nothing.
const RAW: TableId = crate::tables::META.id;

fn put_raw(batch: &mut RawBatch, key: &[u8], value: &[u8]) {
    let stamped = |bytes: &[u8]| Stamped { bytes: bytes.to_vec(), stamps: Vec::new() };
    batch.writes.push(Write::Put { table: RAW, key: stamped(key), value: stamped(value) });
}

fn as_read(backend: &Arc<dyn Backend>) -> &dyn RawRead {
    &**backend
}
