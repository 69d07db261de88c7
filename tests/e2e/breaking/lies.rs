//! What the other cases are worth: on a disk that says that it has synced, and has not, answered
//! orders are lost, and the checks say so.

use std::process::Command;

use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::disk::open_to_all;
use super::{Place, Trial};
use crate::load::each_exists_once;
use crate::support::{Kind, Options};

breaking_both!(on_a_disk_that_lies_about_syncing_the_loss_is_found);

/// Nothing is synced, whoever asks for it.
const LIES: &str = "int fsync(int file) { return 0; }\nint fdatasync(int file) { return 0; }\n";
/// Has a program use a library before those it is linked with.
const PRELOAD: &str = "LD_PRELOAD";

/// A library with these lies.
fn liar() -> (TempDir, String) {
    let folder = TempDir::with_prefix("waybill-lies.").expect("a folder");
    open_to_all(folder.path());
    let [source, library] = ["lies.c", "lies.so"].map(|name| folder.path().join(name));
    std::fs::write(&source, LIES).expect("a file");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.expect("a C compiler").success());
    let library = library.to_str().expect("a path of plain letters").to_owned();
    (folder, library)
}

async fn on_a_disk_that_lies_about_syncing_the_loss_is_found(kind: Kind) {
    let (_folder, library) = liar();
    let mut place = Place::of_megabytes(kind, 512).await;
    let mut options = Options::default();
    match &mut place.server {
        None => options = options.variable(PRELOAD, &library),
        Some(server) => {
            server.gone().await;
            server.variable(PRELOAD, &library);
            server.start().await;
        }
    }
    let Trial { mut stack, mut load, .. } = Trial::of(place.stack(options).await, kind).await;
    // What there is so far is there to stay.
    place.disk.sync();
    load.answered(load.answers() + 50).await;
    let answered = load.stop().await;
    if let Some(server) = &mut place.server {
        server.gone().await;
    }
    stack.kill().await;
    place.disk.loses_power(kind);
    place.disk.comes_back().await;
    if let Some(server) = &mut place.server {
        server.start().await;
    }
    stack.restart().await;
    let orders = stack.all("/v1/orders").await.into_iter();
    let orders = orders.map(|order| (order["id"].to_string(), order)).collect();
    let looked = std::panic::AssertUnwindSafe(each_exists_once(&stack, &answered, &orders));
    let found = looked.catch_unwind().await.expect_err("orders are lost");
    let said = found.downcast_ref::<String>().expect("a sentence");
    assert!(said.contains("is lost"), "{said}");
}
