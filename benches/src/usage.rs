//! What processes take of the machine, as Linux tells it; nothing elsewhere.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc`, the same on every Linux.
const TICKS: u64 = 100;

/// What a process has taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Bytes that it sent to the disk; nothing where that is not ours to see.
    pub(crate) written: Option<u64>,
}

impl Usage {
    /// Since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let written = self.written.zip(earlier.written);
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: written.map(|(now, then)| now.saturating_sub(then)),
        }
    }

    fn plus(self, other: Self) -> Self {
        let written = self.written.zip(other.written).map(|(one, two)| one + two);
        Self { cpu: self.cpu + other.cpu, written }
    }
}

/// Of a process and those of its children that it has waited for.
pub(crate) fn of_process(id: u32) -> Option<Usage> {
    let stat = Stat::read(id)?;
    Some(Usage { cpu: stat.cpu, written: number_after(id, "io", "write_bytes:") })
}

/// Of a process and all its children, whether they run or have ended.
pub(crate) fn of_family(id: u32) -> Option<Usage> {
    let children = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let child: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        (Stat::read(child)?.parent == id).then_some(child)
    });
    // Those that end meanwhile count with their parent the next time.
    let running = children.filter_map(of_process).collect::<Vec<_>>();
    Some(running.into_iter().fold(of_process(id)?, Usage::plus))
}

/// Memory of a process in use, and the most it ever was, in MiB.
pub(crate) fn memory(id: u32) -> Option<(f64, f64)> {
    Some((
        mebibytes(number_after(id, "status", "VmRSS:")?),
        mebibytes(number_after(id, "status", "VmHWM:")?),
    ))
}

/// The process that started this one, if it has that name.
pub(crate) fn parent_named(id: u32, name: &str) -> Option<u32> {
    let parent = Stat::read(id)?.parent;
    (fs::read_to_string(format!("/proc/{parent}/comm")).ok()?.trim() == name).then_some(parent)
}

struct Stat {
    parent: u32,
    cpu: Duration,
}

impl Stat {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name stands in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..15)?.iter().filter_map(|part| part.parse::<u64>().ok()).sum();
        let cpu = Duration::from_millis(ticks * 1000 / TICKS);
        Some(Self { parent: fields.get(1)?.parse().ok()?, cpu })
    }
}

/// The number behind a label of a file of a process.
fn number_after(id: u32, file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "kilobytes of memory, far below 2^52")]
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
