//! When a server that does not take transactions is asked again. Pure.

use myelin_core::Env;

/// The first retry comes after this long, chosen evenly; each further one after twice that.
const FIRST_MS: std::ops::Range<u64> = 10_000..30_000;
/// No wait is longer, and after the longest ones the choice is between a third of it and all of it.
const LONGEST_MS: u64 = 4 * 60 * 60 * 1000;
/// What a server may ask for by `retry_after_ms`.
const RETRY_AFTER_MS_MAX: u64 = 60 * 60 * 1000;

/// The wait after the `failures`th failure in a row (from 1).
pub fn wait_ms(env: &Env, failures: u32) -> u64 {
    let mut bytes = [0; 8];
    env.rng.fill(&mut bytes);
    let share = u64::from_le_bytes(bytes) % (FIRST_MS.end - FIRST_MS.start);
    let doublings = failures.saturating_sub(1).min(20);
    let longest = (FIRST_MS.end << doublings).min(LONGEST_MS);
    let shortest = longest / (FIRST_MS.end / FIRST_MS.start);
    shortest + (longest - shortest) * share / (FIRST_MS.end - FIRST_MS.start)
}

/// The wait that a server asked for itself (429).
pub fn asked_for_ms(retry_after_ms: u64) -> u64 {
    retry_after_ms.clamp(1_000, RETRY_AFTER_MS_MAX)
}

#[cfg(test)]
mod tests {
    use myelin_testenv::Sim;

    use super::*;

    #[test]
    fn waits_double_up_to_some_hours_and_are_spread() {
        let env = Sim::new(1).env();
        for (failures, range) in [
            (1, 10_000..30_000),
            (2, 20_000..60_000),
            (5, 160_000..480_000),
            (12, 4_800_000..14_400_000),
            (u32::MAX, 4_800_000..14_400_000),
        ] {
            let waits: Vec<_> = (0..100).map(|_| wait_ms(&env, failures)).collect();
            assert!(waits.iter().all(|wait| range.contains(wait)), "{failures}: {waits:?}");
            let spread = waits.iter().max().unwrap_or(&0) - waits.iter().min().unwrap_or(&0);
            assert!(spread > (range.end - range.start) / 2, "{failures}: {spread}");
        }
    }

    #[test]
    fn a_server_cannot_ask_to_be_left_alone_for_ever() {
        assert_eq!(asked_for_ms(u64::MAX), 3_600_000);
        assert_eq!(asked_for_ms(0), 1_000);
    }
}
