//! What was measured, in the shape that the table and the JSON file share.

use serde::Serialize;

use super::drive::Driven;
use super::goals;
use super::measure::Cost;

#[derive(Debug, Serialize)]
pub struct Report {
    pub quick: bool,
    pub cores: usize,
    pub subject: Run,
    pub peer: Option<Run>,
}

impl Report {
    pub fn failures(&self) -> usize {
        self.subject.failures.len() + self.peer.as_ref().map_or(0, |run| run.failures.len())
    }
}

/// One server, all workloads.
#[derive(Debug, Serialize)]
pub struct Run {
    pub server: &'static str,
    pub rows: Vec<Row>,
    pub failures: Vec<Failure>,
}

impl Run {
    pub fn new(server: &'static str) -> Self {
        Self { server, rows: Vec::new(), failures: Vec::new() }
    }

    pub fn fail(&mut self, workload: &str, reason: String) {
        eprintln!("{}: {workload} FAILED: {reason}", self.server);
        self.failures.push(Failure { workload: workload.to_owned(), reason });
    }

    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

#[derive(Debug, Serialize)]
pub struct Failure {
    pub workload: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    CpuMicroseconds,
    Milliseconds,
    Seconds,
    Megabytes,
    Bytes,
    Ratio,
}

/// One line of the table: a headline figure, compared with the goal and the peer, and what surrounds it.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub amount: f64,
    pub unit: Unit,
    pub goal: Option<f64>,
    pub operations: Option<usize>,
    pub per_second: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub written_bytes_per_operation: Option<f64>,
    pub generator_cpu_us: Option<f64>,
}

impl Row {
    /// A lone figure.
    pub fn figure(name: impl Into<String>, amount: f64, unit: Unit) -> Self {
        let name = name.into();
        Self {
            goal: goals::goal(&name),
            name,
            amount,
            unit,
            operations: None,
            per_second: None,
            p50_ms: None,
            p99_ms: None,
            written_bytes_per_operation: None,
            generator_cpu_us: None,
        }
    }

    /// Server CPU per operation of a drive, with everything else that is known of it.
    pub fn driven(name: impl Into<String>, driven: &Driven) -> Self {
        Self {
            p50_ms: driven.samples.percentile_ms(50.0),
            p99_ms: driven.samples.percentile_ms(99.0),
            ..Self::shared_out(name, driven.samples.len(), driven.cost)
        }
    }

    /// Server CPU per operation, where several of them share a request and have no latency of their own.
    pub fn shared_out(name: impl Into<String>, operations: usize, cost: Cost) -> Self {
        let each = operations.max(1) as f64;
        Self {
            operations: Some(operations),
            per_second: Some(operations as f64 / cost.wall.as_secs_f64().max(1e-9)),
            written_bytes_per_operation: Some(cost.written_bytes as f64 / each),
            generator_cpu_us: Some(cost.generator_cpu.as_secs_f64() * 1e6 / each),
            ..Self::figure(name, cost.cpu_us_per(operations), Unit::CpuMicroseconds)
        }
    }

    /// For operations that store nothing, where background writes of earlier ones would mislead.
    pub fn without_writes(self) -> Self {
        Self { written_bytes_per_operation: None, ..self }
    }
}
