//! A small file system of one case's own: it can be filled, and it can lose its power.
//!
//! It is ext4 in a file, on a loop device. To lose its power means what it does on a machine: what
//! was written and not synced, data and names alike, is forgotten at once; whoever still runs gets
//! I/O errors; and when the file system is mounted again, it recovers from its journal. The kernel
//! does that on request (`EXT4_IOC_SHUTDOWN` without flushing the journal), as the tests of Linux's
//! own file systems have it do.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::tally;
use crate::support::{Kind, PATIENCE, until};

/// The request to the kernel, and what goes with it: do not write the journal first.
const SHUT_DOWN: &str = "open my $folder, '<', $ARGV[0] or die $!; my $at_once = pack 'L', 2; \
     ioctl $folder, 0x8004587d, $at_once or die $!";
/// The journal is not written by itself, only for those who sync.
const MOUNTED: &str = "loop,commit=600";

/// A mounted file system; gone when it goes out of scope.
#[derive(Debug)]
pub(super) struct Disk {
    scratch: TempDir,
}

impl Disk {
    /// An empty one of this size.
    pub(super) fn of_megabytes(size: u64) -> Self {
        let scratch = TempDir::with_prefix("waybill-disk.").expect("a folder for the disk");
        let disk = Self { scratch };
        let image = File::create(disk.image()).expect("a file for the disk");
        image.set_len(size << 20).expect("a sparse file");
        let image = disk.image();
        // No part of it is kept back for root, and nothing is left to be done in the background.
        let options = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(options).arg(&image));
        std::fs::create_dir(disk.folder()).expect("a folder to mount it on");
        open_to_all(disk.scratch.path());
        disk.mount();
        open_to_all(&disk.folder());
        disk
    }

    /// Where its files are.
    pub(super) fn folder(&self) -> PathBuf {
        self.scratch.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", MOUNTED]).arg(self.image()).arg(self.folder()));
    }

    /// Whatever was written is there for good.
    pub(super) fn sync(&self) {
        run(Command::new("sync").arg("--file-system").arg(self.folder()));
    }

    /// From now on nothing can be read or written, and what was not synced is lost.
    pub(super) fn loses_power(&self, kind: Kind) {
        run(Command::new("perl").args(["-e", SHUT_DOWN]).arg(self.folder()));
        tally::count(kind, "power lost", 1);
    }

    /// It is there again. Nobody may have files of it open.
    pub(super) async fn comes_back(&self) {
        until("nobody uses the disk any more", PATIENCE, async || {
            let unmounted = Command::new("umount").arg(self.folder()).output();
            unmounted.expect("umount starts").status.success().then_some(())
        })
        .await;
        self.mount();
    }

    /// Leaves no room on it.
    pub(super) fn fill(&self, kind: Kind) {
        let mut filler = File::options().create(true).append(true).open(self.filler());
        let filler = filler.as_mut().expect("a file that fills the disk");
        for size in [1 << 20, 1 << 12, 1] {
            let nothing = vec![0; size];
            while filler.write_all(&nothing).is_ok() {}
        }
        tally::count(kind, "disk full", 1);
    }

    /// Makes room again.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.folder().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file of it open keeps it until then.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder()).output();
        if !unmounted.is_ok_and(|done| done.status.success()) {
            eprintln!("the disk of a test could not be unmounted");
        }
    }
}

/// A server may run as another user than the tests.
pub(super) fn open_to_all(folder: &Path) {
    run(Command::new("chmod").arg("a+rwx").arg(folder));
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_disk_that_loses_its_power_keeps_what_was_synced_and_forgets_the_rest() {
    let disk = Disk::of_megabytes(32);
    let at = |name: &str| disk.folder().join(name);
    std::fs::write(at("changed"), "before").unwrap();
    disk.sync();
    for round in 0..3 {
        let synced = format!("synced {round}");
        let mut file = File::create(at(&synced)).unwrap();
        file.write_all(b"here").unwrap();
        file.sync_all().unwrap();
        File::open(disk.folder()).unwrap().sync_all().unwrap();
        std::fs::write(at("forgotten"), "here").unwrap();
        std::fs::write(at("changed"), "after").unwrap();
        disk.loses_power(Kind::Sqlite);
        assert!(std::fs::write(at("too late"), "here").is_err());
        drop(file);
        disk.comes_back().await;
        assert_eq!(std::fs::read_to_string(at(&synced)).unwrap(), "here");
        assert_eq!(std::fs::read_to_string(at("changed")).unwrap(), "before");
        assert!(!at("forgotten").exists());
    }
}

#[tokio::test]
#[ignore = "needs what `scripts/test faults` prepares"]
async fn a_full_disk_takes_nothing_until_there_is_room() {
    let disk = Disk::of_megabytes(32);
    disk.fill(Kind::Sqlite);
    assert!(std::fs::write(disk.folder().join("more"), "here").is_err());
    disk.free();
    until("there is room", Duration::from_secs(5), async || {
        std::fs::write(disk.folder().join("more"), "here").ok()
    })
    .await;
}
