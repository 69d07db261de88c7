//! How the executable is linked.

use std::env;
use std::process::Command;

/// The first version of glibc that reads packed relocations.
const READS_PACKED: (u32, u32) = (2, 36);

/// The loader adjusts a hundred thousand addresses, and keeps the list of them in memory: 2.6 MB, or a fiftieth
/// of that if it is packed (`DT_RELR`). What is linked on a machine that reads packed lists runs only on such
/// machines.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if glibc().is_some_and(|version| version >= READS_PACKED) {
        println!("cargo::rustc-link-arg-bin=waybill=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, where that is glibc and the executable is to run here.
fn glibc() -> Option<(u32, u32)> {
    if env::var_os("HOST")? != env::var_os("TARGET")? {
        return None;
    }
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let (major, minor) = told.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
