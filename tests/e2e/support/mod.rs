//! What every case needs: a database, servers on it, a client, and things to order.
//!
//! # Layout
//! - [`Stack`], [`Options`]: servers with fresh data and a client, whatever they run on.
//! - [`Kind`], [`Store`], [`Server`]: a fresh database of either kind, removed in the end.
//! - [`Process`]: one running `waybill`, and every way to end it.
//! - [`Compose`], [`Project`], [`Container`]: the containers of `compose.yaml`.
//! - [`Client`], [`Reply`]: JSON over HTTP. [`make`]: products, users and orders.
//! - [`World`]: products and customers, and whether the books balance in the end.
//! - [`Collector`]: takes traces, as an OpenTelemetry collector does.
//! - [`Dice`]: chance that can be repeated.
//! - [`until`]: waiting for a condition, with a bound.

mod client;
mod collector;
mod compose;
mod dice;
mod docker;
mod local;
pub(crate) mod make;
mod options;
mod problem;
mod process;
mod stack;
mod stopwatch;
mod store;
mod wait;
mod world;

pub(crate) use client::{Client, Reply};
pub(crate) use collector::{Collector, Told};
pub(crate) use compose::Compose;
pub(crate) use dice::{Dice, variable};
pub(crate) use docker::{Container, Project, docker, docker_on};
pub(crate) use options::Options;
pub(crate) use process::{Ended, Process, executable, finish, run, run_with, signal};
pub(crate) use stack::Stack;
pub(crate) use stopwatch::Stopwatch;
pub(crate) use store::{Kind, Server, Store};
pub(crate) use wait::{PATIENCE, until};
pub(crate) use world::World;
