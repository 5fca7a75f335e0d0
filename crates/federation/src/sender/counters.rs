//! What the sender counts.

use std::sync::Arc;

use myelin_core::{Metrics, metrics::Counter};

use super::{Sender, report::Standing};

pub struct Counters {
    pub delivered: Arc<Counter>,
    pub failed: Arc<Counter>,
    pub pdus: Arc<Counter>,
    pub edus: Arc<Counter>,
    pub refused_pdus: Arc<Counter>,
    pub catch_ups: Arc<Counter>,
    pub woken: Arc<Counter>,
    pub given_up: Arc<Counter>,
}

impl Counters {
    pub fn new(metrics: &Metrics) -> Self {
        let transactions = |result| {
            let help = "Transactions sent to other servers.";
            metrics.counter("myelin_federation_sent_transactions_total", help, &[("result", result)])
        };
        Self {
            delivered: transactions("delivered"),
            failed: transactions("failed"),
            pdus: metrics.counter(
                "myelin_federation_sent_pdus_total",
                "Events delivered to other servers.",
                &[],
            ),
            edus: metrics.counter(
                "myelin_federation_sent_edus_total",
                "EDUs delivered to other servers.",
                &[],
            ),
            refused_pdus: metrics.counter(
                "myelin_federation_refused_pdus_total",
                "Events that other servers took with an error.",
                &[],
            ),
            catch_ups: metrics.counter(
                "myelin_federation_catch_ups_total",
                "Times that a server got the newest events of each room instead of all it missed.",
                &[],
            ),
            woken: metrics.counter(
                "myelin_federation_woken_total",
                "Times that a sign of life of a server ended its back-off.",
                &[],
            ),
            given_up: metrics.counter(
                "myelin_federation_given_up_total",
                "Events and EDUs that a server refused by themselves again and again.",
                &[],
            ),
        }
    }
}

/// How many destinations stand how.
pub fn watch(sender: &Arc<Sender>) {
    for (standing, name) in Standing::ALL {
        let sender_held = Arc::downgrade(sender);
        let help = "Other servers, by how the queue of each stands.";
        sender.view.metrics.gauge("myelin_federation_destinations", help, &[("state", name)], move || {
            sender_held.upgrade().map_or(0, |sender| sender.count(standing))
        });
    }
}
