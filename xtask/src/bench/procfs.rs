//! What a process has cost so far, as the kernel counts it (proc(5)).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// `USER_HZ`, which is 100 on every architecture that Linux runs a server on.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of all threads, gone ones too, and of children that were waited for.
///
/// The process's own share comes from its CPU clock: the same count as `utime + stime` in `/proc/PID/stat`,
/// but in nanoseconds instead of ticks of 10 ms.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    let ticks = Ticks::parse(&stat).with_context(|| format!("/proc/{pid}/stat looks odd: {stat}"))?;
    Ok(own_clock(pid).unwrap_or_else(|| ticks.own()) + ticks.children())
}

/// Bytes that the process caused to be sent to the storage layer.
pub fn written_bytes(pid: u32) -> Result<u64> {
    let io = read(pid, "io")?;
    field(&io, "write_bytes:").with_context(|| format!("/proc/{pid}/io has no write_bytes"))
}

/// Resident memory now, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory at any time since [`forget_peak`], in bytes.
pub fn peak_bytes(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

fn memory(pid: u32, name: &str) -> Result<u64> {
    let status = read(pid, "status")?;
    let kib = field(&status, name).with_context(|| format!("/proc/{pid}/status has no {name}"))?;
    Ok(kib * 1024)
}

/// Space that a directory's files take on the disk.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Files may go away between the listing and the look: a compaction does that.
        let Ok(metadata) = entry.metadata() else { continue };
        total += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(total)
}

#[derive(Debug, PartialEq)]
struct Ticks {
    user: u64,
    system: u64,
    children_user: u64,
    children_system: u64,
}

impl Ticks {
    /// Fields 14 to 17; the second one, the program's name, may contain anything.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11).map_while(|field| field.parse().ok());
        Some(Self {
            user: fields.next()?,
            system: fields.next()?,
            children_user: fields.next()?,
            children_system: fields.next()?,
        })
    }

    fn own(&self) -> Duration {
        duration(self.user + self.system)
    }

    fn children(&self) -> Duration {
        duration(self.children_user + self.children_system)
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn own_clock(pid: u32) -> Option<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path}: is the server still running?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_name_with_brackets_and_blanks() {
        let stat = "42 (a (b) 9 c) S 1 42 42 0 -1 4194560 900 0 7 0 250 50 3 1 20 0 8 0 100 1 2";
        let ticks = Ticks::parse(stat).unwrap();
        assert_eq!(ticks, Ticks { user: 250, system: 50, children_user: 3, children_system: 1 });
        assert_eq!(ticks.own(), Duration::from_secs(3));
        assert_eq!(ticks.children(), Duration::from_millis(40));
    }

    #[test]
    fn a_short_stat_is_no_ticks() {
        assert_eq!(Ticks::parse("42 (x) S 1 42"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let io = "wchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 12\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field("VmHWM:\t 20 kB\nVmRSS:\t   10 kB\n", "VmRSS:"), Some(10));
        assert_eq!(field(io, "read_bytes:"), None);
    }

    #[test]
    fn this_process_has_cost_something() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut sum = 0u64;
        while cpu_time(pid).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident_bytes(pid).unwrap() > 0);
        written_bytes(pid).unwrap();
    }

    #[test]
    fn the_peak_of_memory_is_forgotten() {
        let pid = std::process::id();
        drop(std::hint::black_box(vec![7u8; 64 << 20]));
        let peak = peak_bytes(pid).unwrap();
        assert!(peak > 64 << 20);
        forget_peak(pid).unwrap();
        assert!(peak_bytes(pid).unwrap() < peak);
    }

    #[test]
    fn the_space_of_a_directory_is_that_of_all_files_below_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("below")).unwrap();
        std::fs::write(directory.path().join("below/file"), vec![7; 100_000]).unwrap();
        assert!(disk_bytes(directory.path()).unwrap() >= 100_000);
    }
}
