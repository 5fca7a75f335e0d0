//! Numbers about a running process: counted by whoever has something to count, shown by whoever knows how.
//!
//! Plain atomics behind a registry, and the text of the Prometheus exposition format, which is a line per number. No
//! global recorder: a process has one registry (`myelin_view::View::metrics`), a simulation one per server.
//!
//! Must not know: who reads the numbers.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts upwards. Keep the handle where something happens often.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Labels = Vec<(&'static str, String)>;
type Gauge = Box<dyn Fn() -> u64 + Send + Sync>;

enum Reading {
    Counter(Arc<Counter>),
    Gauge(Gauge),
}

struct Family {
    help: &'static str,
    kind: &'static str,
    readings: BTreeMap<Labels, Reading>,
}

/// Every number of a process, by name and labels.
#[derive(Default)]
pub struct Metrics(Mutex<BTreeMap<&'static str, Family>>);

impl Metrics {
    /// The counter of this name and these labels, which must be few: each is a line for ever. Names end in `_total`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Arc<Counter> {
        let mut families = self.families();
        let family = families.entry(name).or_insert_with(|| Family::new(help, "counter"));
        let reading =
            family.readings.entry(owned(labels)).or_insert_with(|| Reading::Counter(Arc::default()));
        match reading {
            Reading::Counter(counter) => counter.clone(),
            // The name is a gauge's: counted, but not shown.
            Reading::Gauge(_) => Arc::default(),
        }
    }

    /// A number that is looked at when somebody asks; must be quick.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let mut families = self.families();
        let family = families.entry(name).or_insert_with(|| Family::new(help, "gauge"));
        family.readings.insert(owned(labels), Reading::Gauge(Box::new(read)));
    }

    /// The text of the Prometheus exposition format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in &*self.families() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for (labels, reading) in &family.readings {
                let _ = writeln!(out, "{name}{} {}", Shown(labels), reading.get());
            }
        }
        out
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    fn new(help: &'static str, kind: &'static str) -> Self {
        Self { help, kind, readings: BTreeMap::new() }
    }
}

impl Reading {
    fn get(&self) -> u64 {
        match self {
            Self::Counter(counter) => counter.get(),
            Self::Gauge(read) => read(),
        }
    }
}

struct Shown<'a>(&'a Labels);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' })?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_in_the_exposition_format() {
        let metrics = Metrics::default();
        metrics.counter("pdus_total", "PDUs.", &[("direction", "out")]).add(2);
        metrics.counter("pdus_total", "PDUs.", &[("direction", "out")]).add(1);
        metrics.counter("pdus_total", "PDUs.", &[("direction", "i\"n\\\n")]).add(7);
        metrics.gauge("waiting", "Who waits.", &[], || 5);
        let text = "# HELP pdus_total PDUs.\n# TYPE pdus_total counter\n\
            pdus_total{direction=\"i\\\"n\\\\\\n\"} 7\npdus_total{direction=\"out\"} 3\n\
            # HELP waiting Who waits.\n# TYPE waiting gauge\nwaiting 5\n";
        assert_eq!(metrics.render(), text);
    }
}
