//! Section headers with durations, and the verdict at the end.

use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Report {
    sections: Vec<Outcome>,
}

struct Outcome {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

impl Report {
    /// Runs a section that the later ones stand on: its failure ends the run.
    pub fn section<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self.record(name, work) {
            Some(value) => Ok(value),
            None => anyhow::bail!("nothing else was run: '{name}' comes first"),
        }
    }

    /// Runs a section and remembers its verdict; the run goes on after a failure, so that one run tells everything.
    pub fn record<T>(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        println!("\n=== {name}");
        let (result, took) = timed(work);
        let failure = result.as_ref().err().map(|error| format!("{error:#}"));
        match &failure {
            None => println!("=== {name}: ok ({})", human(took)),
            Some(why) => println!("=== {name}: FAILED after {}: {why}", human(took)),
        }
        self.sections.push(Outcome { name, took, failure });
        result.ok()
    }

    /// Prints the table of sections; an error if any of them failed.
    pub fn finish(self) -> anyhow::Result<()> {
        println!("\n=== all sections");
        for Outcome { name, took, failure } in &self.sections {
            println!("{:<28} {:>8}  {}", name, human(*took), failure.as_deref().unwrap_or("ok"));
        }
        let failed = self.sections.iter().filter(|outcome| outcome.failure.is_some()).count();
        anyhow::ensure!(failed == 0, "{failed} of {} sections failed", self.sections.len());
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "durations of a test run, shown to a person")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let value = work();
    (value, started.elapsed())
}

fn human(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_section_fails_the_run_and_does_not_stop_it() {
        let mut report = Report::default();
        assert_eq!(report.record("one", || anyhow::bail!("broken")), None::<()>);
        assert_eq!(report.record("two", || Ok(2)), Some(2));
        let error = report.finish().expect_err("one section failed");
        assert_eq!(error.to_string(), "1 of 2 sections failed");
    }

    #[test]
    fn a_run_without_failures_succeeds() {
        let mut report = Report::default();
        assert_eq!(report.section("one", || Ok(1)).ok(), Some(1));
        assert!(report.finish().is_ok());
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(human(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(human(Duration::from_secs(125)), "2m05s");
    }
}
