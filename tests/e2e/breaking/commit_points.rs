//! Processes that end at every point where something is committed: before it has its turn, when
//! everything is written, and when everything is committed and nobody knows.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use waybill_runtime::failpoints::{CommitPoint, Moment};

use super::{Share, Trial, tally};
use crate::support::{
    Dice, Kind, Options, PATIENCE, Process, Stack, Stopwatch, Store, run_with, until,
};

breaking_both!(processes_killed_at_every_commit_point_lose_and_double_nothing);

/// What the executable reads where it is built with its failpoints.
const VARIABLE: &str = "WAYBILL_FAILPOINT";
const WRITERS: [&str; 4] = ["order", "inventory", "logistics", "user"];
/// How `std::process::abort` ends a process.
const ABORTED: i32 = 6;
/// After how many ends a message is parked: those that may end the process, and one that nobody
/// counts, where the process had come to rest before.
const ENDS: usize = 3 + 1;

/// How many processes may pass a point by, because they had nothing to do there.
const TRIES: usize = 10;
/// How often a process is told to end until it meets a place on its way: a consumer saves where it
/// is only if it has just heard something without an effect, which is so at one end in a few.
const STOPS: usize = 60;
/// How long each of the others has.
const SOON: Duration = Duration::from_secs(5);

/// How a process comes to a point.
enum Way {
    /// With one of these turns, at work under load.
    AtWork(&'static [&'static str]),
    /// The first time on an empty database.
    OnNothing,
    /// When it is told to stop, if it has something left to save then.
    AtItsEnd(&'static str),
    /// Once a minute.
    NowAndThen,
    /// After a message has ended it three times, each time at this other point.
    AfterCrashes(&'static str, CommitPoint),
    /// When an operator has a parked message tried again.
    OnRetry,
    /// By this command, while no server runs.
    ByCommand(&'static str),
    /// After the answer to this other commit was lost.
    AfterLostAnswer(&'static str, CommitPoint),
}

fn way_to(point: CommitPoint) -> Way {
    use CommitPoint as Point;
    match point {
        Point::Commands => Way::AtWork(&["order"]),
        Point::Events | Point::Attempt | Point::RunBegun | Point::RunsForgotten => {
            Way::AtWork(&WRITERS)
        }
        // Under load there is always something that comes with it.
        Point::Checkpoint => Way::AtItsEnd("*"),
        Point::Timers => Way::AtWork(&["logistics"]),
        Point::Append => Way::AtWork(&["event_store"]),
        Point::Naming => Way::OnNothing,
        Point::RunEnded => Way::AtItsEnd("order"),
        Point::Pruning => Way::NowAndThen,
        Point::ParkedEvent => Way::AfterCrashes("order", Point::Events),
        Point::ParkedTimer => Way::AfterCrashes("logistics", Point::Timers),
        Point::Settlement | Point::Retries => Way::OnRetry,
        Point::Rebuild => Way::ByCommand("rebuild"),
        Point::Rewind => Way::ByCommand("rewind"),
        Point::Inquiry => Way::AfterLostAnswer("order", Point::Commands),
    }
}

async fn processes_killed_at_every_commit_point_lose_and_double_nothing(kind: Kind) {
    tokio::join!(killed_at_work(kind), killed_once_a_minute(kind));
}

async fn killed_at_work(kind: Kind) {
    let mut dice = Dice::thrown();
    let mut share = Share::of(3);
    let mut drill = Drill { trial: Trial::start(kind).await, kind };
    for point in CommitPoint::ALL {
        // The load gets on, however often processes end.
        drill.revives("").await;
        drill.trial.answers(5).await;
        for moment in Moment::ALL {
            // The question whether a commit took place commits nothing itself.
            if *point != CommitPoint::Inquiry || *moment == Moment::Turn {
                drill.dies_at(*point, *moment, &mut dice).await;
            }
        }
    }
    while share.goes_on() {
        let (point, moment) = (*dice.pick(CommitPoint::ALL), *dice.pick(Moment::ALL));
        if let Way::AtWork(_) = way_to(point) {
            drill.dies_at(point, moment, &mut dice).await;
        }
    }
    drill.revives("").await;
    drill.trial.ends_well().await;
}

/// Whether a process is there only while it takes care, as it does after an unclean end.
fn at_its_beginning(point: CommitPoint) -> bool {
    matches!(point, CommitPoint::RunBegun | CommitPoint::RunsForgotten | CommitPoint::Attempt)
}

/// What makes a process end there.
fn abort_at(owner: &str, point: CommitPoint, moment: Moment, nth: u64) -> String {
    format!("{owner}.{point}:{moment}:abort:{nth}")
}

fn aborted(status: ExitStatus, place: &str) {
    assert_eq!(status.signal(), Some(ABORTED), "at {place} it ended with {status}");
}

fn told(kind: Kind, point: CommitPoint, moment: Moment) {
    tally::count(kind, &format!("process killed at {point}, {moment}"), 1);
}

struct Drill {
    trial: Trial,
    kind: Kind,
}

impl Drill {
    async fn dies_at(&mut self, point: CommitPoint, moment: Moment, dice: &mut Dice) {
        let watch = Stopwatch::start();
        match way_to(point) {
            Way::AtWork(owners) => {
                let owner: &&str = dice.pick(owners);
                let nth = if at_its_beginning(point) { 1 } else { 1 + dice.roll(3) };
                self.dies_at_work(&abort_at(owner, point, moment, nth)).await;
            }
            Way::OnNothing => {
                // Meanwhile the load goes on.
                self.revives("").await;
                killed_on_nothing(self.kind, point, moment).await;
            }
            Way::AtItsEnd(owner) => self.dies_at_its_end(&abort_at(owner, point, moment, 1)).await,
            Way::NowAndThen => return,
            Way::AfterCrashes(owner, crashing) => {
                let crash = abort_at(owner, crashing, Moment::Before, 1);
                let places = format!("{crash},{}", abort_at(owner, point, moment, 1));
                for _ in 0..ENDS {
                    self.revives(&places).await;
                    self.dies(&places).await;
                }
                self.revives("").await;
                self.parked(owner).await;
                self.handled(owner).await;
            }
            Way::OnRetry => self.dies_on_retry(point, moment).await,
            Way::ByCommand(command) => self.command_dies(command, point, moment).await,
            Way::AfterLostAnswer(owner, commit) => {
                let answer = format!("{owner}.{commit}:{}:error", Moment::After);
                let places = format!("{answer},{}", abort_at(owner, point, moment, 1));
                self.revives(&places).await;
                self.dies(&places).await;
            }
        }
        told(self.kind, point, moment);
        let took = watch.elapsed().as_secs_f64();
        eprintln!("{:?}: killed at {point}, {moment}: {took:.1} s", self.kind);
    }

    /// Starts the process again; it will end where this says, perhaps before it serves.
    async fn revives(&mut self, places: &str) {
        let stack = &mut self.trial.stack;
        if stack.process_mut().runs() {
            stack.kill().await;
        }
        stack.options = Options::default();
        if !places.is_empty() {
            stack.options = Options::default().variable(VARIABLE, places);
        }
        let serves = stack.try_restart().await;
        if places.is_empty() {
            assert!(serves, "it serves");
            stack.ready().await;
        }
    }

    async fn dies(&mut self, place: &str) {
        aborted(self.trial.stack.process_mut().ended_by_itself().await, place);
    }

    async fn dies_at_work(&mut self, place: &str) {
        for _ in 0..TRIES {
            self.revives(place).await;
            let process = self.trial.stack.process_mut();
            if tokio::time::timeout(SOON, process.ended_by_itself()).await.is_ok() {
                break;
            }
        }
        self.dies(place).await;
    }

    async fn dies_at_its_end(&mut self, place: &str) {
        for _ in 0..STOPS {
            self.revives(place).await;
            let Trial { stack, load, .. } = &mut self.trial;
            let enough = load.answers() + 5;
            until("it is at work, or there already", PATIENCE, async || {
                (load.answers() >= enough || !stack.process_mut().runs()).then_some(())
            })
            .await;
            if stack.process_mut().runs() {
                stack.process().terminate();
            }
            if !self.trial.stack.process_mut().ended_by_itself().await.success() {
                break;
            }
        }
        self.dies(place).await;
    }

    /// Waits until a message of this service is parked; the path of its retry.
    async fn parked(&self, service: &str) -> String {
        let path = format!("/v1/ops/{service}/dead-letters");
        let id = until("a message is parked", PATIENCE, async || {
            let parked = self.trial.stack.all(&format!("{path}?status=parked")).await;
            Some(parked.first()?["id"].as_str().expect("an id").to_owned())
        })
        .await;
        format!("{path}/{id}/retry")
    }

    /// An operator has what was parked tried again, until nothing waits any more.
    async fn handled(&self, service: &str) {
        let path = format!("/v1/ops/{service}/dead-letters");
        until("what was parked is handled", PATIENCE, async || {
            for parked in self.trial.stack.all(&format!("{path}?status=parked")).await {
                let id = parked["id"].as_str().expect("an id");
                self.trial.stack.post(&format!("{path}/{id}/retry"), &Value::Null).await;
            }
            let all = self.trial.stack.all(&path).await;
            all.iter().all(|one| one["status"] == "handled").then_some(())
        })
        .await;
    }

    async fn dies_on_retry(&mut self, point: CommitPoint, moment: Moment) {
        let crash = abort_at("order", CommitPoint::Events, Moment::Before, 1);
        for _ in 0..ENDS {
            self.revives(&crash).await;
            self.dies(&crash).await;
        }
        self.revives("").await;
        let retry = self.parked("order").await;
        let place = abort_at("order", point, moment, 1);
        self.revives(&place).await;
        self.trial.stack.ready().await;
        // Whether it is answered, or the process ends before that.
        let asked = self.trial.stack.ask(Method::POST, &retry).json(&Value::Null).try_send().await;
        if let Ok(reply) = asked {
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        self.dies(&place).await;
        self.revives("").await;
        self.handled("order").await;
    }

    /// The command ends half-way; what it did not do, it does the next time.
    async fn command_dies(&mut self, command: &str, point: CommitPoint, moment: Moment) {
        let stack = &mut self.trial.stack;
        if stack.process_mut().runs() {
            stack.kill().await;
        }
        let arguments = [vec![command.to_owned(), "order".to_owned()], stack.store().arguments()];
        let place = abort_at("order", point, moment, 1);
        let died = run_with(&arguments.concat(), &[(VARIABLE, &place)]).await;
        assert_eq!(died.code, None, "{command} ends by a signal: {died:?}");
        let again = run_with(&arguments.concat(), &[]).await;
        assert_eq!(again.code, Some(0), "{again:?}");
    }
}

/// A process that ends when it has just found nothing, and another one after it.
async fn killed_on_nothing(kind: Kind, point: CommitPoint, moment: Moment) {
    let store = Store::new(kind).await;
    let place = abort_at("event_store", point, moment, 1);
    let variables = [(VARIABLE.to_owned(), place.clone())];
    let arguments = Options::default().arguments(&store);
    let (mut process, _) = Process::try_serve(&arguments, &variables).await;
    aborted(process.ended_by_itself().await, &place);
    let mut trial = Trial::of(Stack::on(store, Options::default()).await, kind).await;
    trial.answers(5).await;
    trial.ends_well().await;
}

/// Processes that end when they forget old answers.
async fn killed_once_a_minute(kind: Kind) {
    let mut trials = Vec::new();
    for moment in Moment::ALL {
        let place = abort_at("order", CommitPoint::Pruning, *moment, 1);
        let options = Options::default().variable(VARIABLE, &place);
        trials.push((*moment, place, Stack::with(kind, options).await));
    }
    for (moment, place, mut stack) in trials {
        until(&place, PATIENCE * 4, async || (!stack.process_mut().runs()).then_some(())).await;
        aborted(stack.process_mut().ended_by_itself().await, &place);
        told(kind, CommitPoint::Pruning, moment);
        stack.options = Options::default();
        stack.restart().await;
        let mut trial = Trial::of(stack, kind).await;
        trial.answers(5).await;
        trial.ends_well().await;
    }
}
