//! Latencies of many operations, and what a stretch of time cost the server.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::procfs;
use super::server::Server;

/// Latencies, one per operation.
#[derive(Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn extend(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// The smallest sample that at least `percent` of all samples do not exceed (nearest rank), in ms.
    pub fn percentile_ms(&self, percent: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).map(|sample| sample.as_secs_f64() * 1e3)
    }
}

/// A stretch of time during which one server is watched.
pub struct Window {
    pid: u32,
    opened: Instant,
    at_start: Counters,
    resident_bytes: u64,
}

/// What happened in a window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub wall: Duration,
    pub server_cpu: Duration,
    pub generator_cpu: Duration,
    pub written_bytes: u64,
    /// How far the resident memory rose above where it began, at its highest.
    pub memory_bytes: u64,
}

impl Cost {
    pub fn cpu_us_per(&self, operations: usize) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / operations.max(1) as f64
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.server_cpu += other.server_cpu;
        self.generator_cpu += other.generator_cpu;
        self.written_bytes += other.written_bytes;
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
    }
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    server_cpu: Duration,
    generator_cpu: Duration,
    written_bytes: u64,
}

impl Window {
    pub fn open(server: &Server) -> Result<Self> {
        let pid = server.pid();
        procfs::forget_peak(pid)?;
        let resident_bytes = procfs::resident_bytes(pid)?;
        Ok(Self { pid, resident_bytes, at_start: Counters::read(pid)?, opened: Instant::now() })
    }

    pub fn close(self) -> Result<Cost> {
        let wall = self.opened.elapsed();
        let at_end = Counters::read(self.pid)?;
        Ok(Cost {
            wall,
            server_cpu: at_end.server_cpu.saturating_sub(self.at_start.server_cpu),
            generator_cpu: at_end.generator_cpu.saturating_sub(self.at_start.generator_cpu),
            written_bytes: at_end.written_bytes.saturating_sub(self.at_start.written_bytes),
            memory_bytes: procfs::peak_bytes(self.pid)?.saturating_sub(self.resident_bytes),
        })
    }
}

impl Counters {
    fn read(pid: u32) -> Result<Self> {
        Ok(Self {
            server_cpu: procfs::cpu_time(pid)?,
            generator_cpu: procfs::cpu_time(std::process::id())?,
            written_bytes: procfs::written_bytes(pid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ms: &[u64]) -> Samples {
        Samples(ms.iter().copied().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_nearest_ranks_of_the_sorted_samples() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        for (percent, expected) in [(50.0, 50.0), (99.0, 99.0), (100.0, 100.0), (0.0, 1.0)] {
            assert_eq!(samples(&hundred).percentile_ms(percent), Some(expected), "p{percent}");
        }
    }

    #[test]
    fn few_samples_have_percentiles_too_and_none_has_none() {
        assert_eq!(samples(&[7]).percentile_ms(50.0), Some(7.0));
        assert_eq!(samples(&[7]).percentile_ms(99.0), Some(7.0));
        assert_eq!(samples(&[3, 9]).percentile_ms(50.0), Some(3.0));
        assert_eq!(samples(&[]).percentile_ms(50.0), None);
    }

    #[test]
    fn cost_is_shared_out_among_operations() {
        let cost = Cost { server_cpu: Duration::from_millis(3), ..Cost::default() };
        assert_eq!(cost.cpu_us_per(30), 100.0);
        assert_eq!(cost.cpu_us_per(0), 3000.0);
    }
}
