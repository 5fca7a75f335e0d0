//! The machine: clock, disk, open-file limit.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use myelin_core::Env;
use rustix::process::{Resource, getrlimit};

use super::{Finding, bad, doubtful, good};
use crate::{config::Config, media::Place, storage};

/// 2026-01-01; this program is younger than that.
const PAST_MS: u64 = 1_767_225_600_000;
/// 2100-01-01.
const FUTURE_MS: u64 = 4_102_444_800_000;
/// How far the data may be ahead of the clock.
const SKEW_MAX: Duration = Duration::from_secs(60);

const GIB: u64 = 1 << 30;
const DISK_LOW: u64 = 2 * GIB;
const DISK_FULL: u64 = GIB / 4;
const OPEN_FILES_MIN: u64 = 4096;

pub fn clock(config: &Config, env: &Env) -> Vec<Finding> {
    let now_ms = env.now_ms();
    let newest_ms = storage::directory(&config.store.uri).and_then(newest_file_ms);
    vec![judge_clock(now_ms, newest_ms)]
}

fn judge_clock(now_ms: u64, newest_ms: Option<u64>) -> Finding {
    let remedy = "set the clock and keep it right with NTP (timedatectl set-ntp true)";
    let skew_ms = newest_ms.map_or(0, |newest| newest.saturating_sub(now_ms));
    if !(PAST_MS..FUTURE_MS).contains(&now_ms) {
        return bad(
            "clock",
            format!("it stands at {} seconds since 1970, which cannot be", now_ms / 1000),
            remedy,
        );
    }
    if u128::from(skew_ms) > SKEW_MAX.as_millis() {
        return bad(
            "clock",
            format!("the data was written {} s in the future of this clock", skew_ms / 1000),
            remedy,
        );
    }
    good("clock", "plausible")
}

fn newest_file_ms(directory: &Path) -> Option<u64> {
    let files = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let modified =
        files.filter_map(|file| file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    modified.max().and_then(|newest| u64::try_from(newest.as_millis()).ok())
}

pub fn disk(config: &Config) -> Vec<Finding> {
    let Some(directory) = storage::directory(&config.store.uri) else { return Vec::new() };
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => vec![judge_disk(stat.f_bavail.saturating_mul(stat.f_frsize), existing)],
        Err(error) => {
            vec![doubtful("disk", format!("free space is unknown: {error}"), "check it yourself (df -h)")]
        }
    }
}

fn judge_disk(free: u64, path: &Path) -> Finding {
    let found = format!("{:.1} GiB free at {}", free as f64 / GIB as f64, path.display());
    match free {
        0..DISK_FULL => bad("disk", found, "make room now: without space nothing can be stored"),
        DISK_FULL..DISK_LOW => doubtful("disk", found, "make room, or move the store to a larger disk"),
        _ => good("disk", found),
    }
}

pub fn media(config: &Config) -> Vec<Finding> {
    match crate::media::place(config) {
        Place::Memory => {
            vec![doubtful("media", "media is in memory and lost at the end", "set store.uri or media.uri")]
        }
        Place::Bucket(uri) => vec![good("media", format!("{uri} is used when somebody uploads"))],
        Place::Directory(path) => {
            let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
            vec![judge_media(
                &path,
                existing,
                rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok(),
            )]
        }
    }
}

fn judge_media(path: &Path, existing: &Path, writable: bool) -> Finding {
    match writable {
        true => good("media", format!("{} can be used", path.display())),
        false => doubtful(
            "media",
            format!("{} is not writable", existing.display()),
            "give it to the user that runs myelin, or change media.uri",
        ),
    }
}

pub fn open_files() -> Vec<Finding> {
    vec![judge_open_files(getrlimit(Resource::Nofile).maximum)]
}

/// Every connection is an open file. The server raises its limit to the maximum by itself.
fn judge_open_files(maximum: Option<u64>) -> Finding {
    match maximum {
        Some(limit) if limit < OPEN_FILES_MIN => doubtful(
            "open files",
            format!("at most {limit}, and each connection takes one"),
            "raise the limit (LimitNOFILE=65536 in the systemd unit, or ulimit -Hn)",
        ),
        Some(limit) => good("open files", format!("up to {limit}")),
        None => good("open files", "no limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn grade(finding: &Finding) -> &'static str {
        match finding.verdict {
            Verdict::Good(_) => "good",
            Verdict::Doubtful { .. } => "doubtful",
            Verdict::Bad { .. } => "bad",
        }
    }

    #[test]
    fn clocks_are_judged() {
        let now = PAST_MS + 1_000_000;
        for (now, newest, expected) in [
            (now, None, "good"),
            (now, Some(now + 1_000), "good"),
            (now, Some(now + 61_000), "bad"),
            (0, None, "bad"),
            (FUTURE_MS, None, "bad"),
        ] {
            assert_eq!(grade(&judge_clock(now, newest)), expected, "{now} {newest:?}");
        }
    }

    #[test]
    fn disks_and_limits_are_judged() {
        for (free, expected) in [(10 * GIB, "good"), (GIB, "doubtful"), (1000, "bad")] {
            assert_eq!(grade(&judge_disk(free, Path::new("/"))), expected, "{free}");
        }
        for (writable, expected) in [(true, "good"), (false, "doubtful")] {
            assert_eq!(grade(&judge_media(Path::new("/m"), Path::new("/"), writable)), expected);
        }
        for (limit, expected) in [(None, "good"), (Some(65_536), "good"), (Some(1024), "doubtful")] {
            assert_eq!(grade(&judge_open_files(limit)), expected, "{limit:?}");
        }
    }
}
