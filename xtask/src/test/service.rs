//! What the servers that the tests start have in common: a free port of loopback, and waiting until they answer.

use std::{net::TcpListener, process::Child, thread, time::Duration};

/// How often a server is asked whether it is ready, and for how long: 60 seconds.
const READY_POLL: Duration = Duration::from_millis(100);
const READY_POLLS_MAX: u32 = 600;
const START_ATTEMPTS_MAX: u32 = 3;

/// Starts a server at a free port; at another one if that fails.
pub fn at_free_port<S>(start: impl Fn(u16) -> anyhow::Result<S>) -> anyhow::Result<S> {
    for _ in 1..START_ATTEMPTS_MAX {
        // The port may be taken between finding it and using it.
        match start(free_port()?) {
            Ok(server) => return Ok(server),
            Err(error) => println!("{error:#}; trying another port"),
        }
    }
    start(free_port()?)
}

/// An error if the server ends before it is ready.
pub fn wait_until_ready(
    name: &str,
    child: &mut Child,
    is_ready: impl Fn() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    for _ in 0..READY_POLLS_MAX {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("{name} ended with {status}");
        }
        if is_ready()? {
            return Ok(());
        }
        thread::sleep(READY_POLL);
    }
    anyhow::bail!("{name} is not ready after {} s", (READY_POLL * READY_POLLS_MAX).as_secs())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, process::Command};

    use super::*;

    #[test]
    fn a_start_is_tried_a_few_times() {
        let tried = Cell::new(0);
        let starts_at = |attempt: u32| {
            tried.set(0);
            at_free_port(|port| {
                tried.set(tried.get() + 1);
                anyhow::ensure!(tried.get() == attempt, "no");
                Ok(port)
            })
        };
        assert!(starts_at(START_ATTEMPTS_MAX).is_ok());
        assert!(starts_at(START_ATTEMPTS_MAX + 1).is_err());
        assert_eq!(tried.get(), START_ATTEMPTS_MAX);
    }

    #[test]
    fn a_server_that_ends_is_not_waited_for() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().expect("sh is there");
        let error = wait_until_ready("it", &mut child, || Ok(false)).expect_err("it has ended");
        assert!(error.to_string().starts_with("it ended with"), "{error}");
    }
}
