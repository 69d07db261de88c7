//! What happens at the places, in a build that has them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{CommitPoint, Moment};

/// The environment variable that [`arm_from_environment`] reads: one or more of
/// `OWNER.POINT:MOMENT:ACTION[:NTH]`, separated by commas.
///
/// OWNER is a service, `event_store`, or `*` for any; POINT and MOMENT are texts of [`CommitPoint`]
/// and [`Moment`]; ACTION is `abort`, `error` or `pause=MILLISECONDS`. It acts when the place is
/// reached for the NTH time, the first if left out, and only then. So `order.commands:after:abort:3`
/// ends the process after its third batch of commands is committed, before anybody is answered.
pub const VARIABLE: &str = "WAYBILL_FAILPOINT";

/// A place that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reached {
    /// Whose turn it is: a service's name, or `event_store`.
    pub owner: &'static str,
    /// Which transaction.
    pub point: CommitPoint,
    /// Where in it.
    pub moment: Moment,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.owner, self.point, self.moment)
    }
}

/// What happens at a place.
pub enum Action {
    /// Nothing.
    Pass,
    /// The database seems to have gone away: before the commit, and it did not take place; after
    /// it, and its answer is lost.
    Fail,
    /// The process ends, as by `kill -9`.
    Abort,
    /// It goes on when this does.
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
}

type Plan = Arc<dyn Fn(Reached) -> Action + Send + Sync>;

tokio::task_local! {
    static PLAN: Plan;
}

/// Runs a future with a plan that says what happens at each place it reaches.
///
/// Tasks that it spawns do not follow the plan.
pub async fn scope<F: Future>(
    plan: impl Fn(Reached) -> Action + Send + Sync + 'static,
    future: F,
) -> F::Output {
    PLAN.scope(Arc::new(plan), future).await
}

/// Makes this process do what the variable [`VARIABLE`] says; nothing if it is not set.
pub fn arm_from_environment() -> Result<(), BadFailpoint> {
    let Ok(given) = std::env::var(VARIABLE) else { return Ok(()) };
    let armed = given.split(',').map(str::parse).collect::<Result<Vec<Armed>, _>>()?;
    // Armed before: what it says has not changed since.
    let _ = ARMED.set(armed);
    Ok(())
}

/// A text that is not of the form that [`VARIABLE`] explains.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is no failpoint: it must be OWNER.POINT:MOMENT:ACTION[:NTH]; {detail}")]
pub struct BadFailpoint {
    given: String,
    detail: String,
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

/// A place at which the process does something when it is there for the nth time.
#[derive(Debug)]
struct Armed {
    /// Empty for any.
    owner: String,
    point: CommitPoint,
    moment: Moment,
    does: Does,
    nth: u64,
    seen: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Abort,
    Fail,
    Pause(Duration),
}

impl FromStr for Armed {
    type Err = BadFailpoint;

    fn from_str(given: &str) -> Result<Self, BadFailpoint> {
        let bad = |detail: String| BadFailpoint { given: given.to_owned(), detail };
        let fields: Vec<&str> = given.trim().split(':').collect();
        let (place, moment, does, nth) = match fields.as_slice() {
            [place, moment, does] => (place, moment, does, "1"),
            [place, moment, does, nth] => (place, moment, does, *nth),
            _ => return Err(bad("it has too few or too many fields".to_owned())),
        };
        let (owner, point) =
            place.split_once('.').ok_or_else(|| bad("OWNER.POINT needs a dot".to_owned()))?;
        Ok(Self {
            owner: if owner == "*" { String::new() } else { owner.to_owned() },
            point: point.parse().map_err(|error| bad(format!("POINT {error}")))?,
            moment: moment.parse().map_err(|error| bad(format!("MOMENT {error}")))?,
            does: does.parse().map_err(bad)?,
            nth: nth.parse().map_err(|_| bad("NTH must be a number".to_owned()))?,
            seen: AtomicU64::new(0),
        })
    }
}

impl FromStr for Does {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pause = text.strip_prefix("pause=").and_then(|millis| millis.parse().ok());
        match (text, pause) {
            ("abort", _) => Ok(Self::Abort),
            ("error", _) => Ok(Self::Fail),
            (_, Some(millis)) => Ok(Self::Pause(Duration::from_millis(millis))),
            _ => Err("ACTION must be abort, error or pause=MILLISECONDS".to_owned()),
        }
    }
}

impl Armed {
    /// Whether it acts now, at this place.
    fn acts(&self, reached: Reached) -> bool {
        let here = (self.owner.is_empty() || self.owner == reached.owner)
            && (self.point, self.moment) == (reached.point, reached.moment);
        here && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.nth
    }
}

fn armed(reached: Reached) -> Action {
    // All of them count, also those behind the one that acts.
    let acting = ARMED.get().into_iter().flatten().filter(|armed| armed.acts(reached));
    match acting.fold(None, |first, armed| first.or(Some(armed.does))) {
        None => Action::Pass,
        Some(Does::Abort) => Action::Abort,
        Some(Does::Fail) => Action::Fail,
        Some(Does::Pause(time)) => Action::Wait(Box::pin(tokio::time::sleep(time))),
    }
}

/// A transaction of one owner.
#[derive(Debug)]
pub(crate) struct Place {
    owner: &'static str,
    point: CommitPoint,
}

impl Place {
    pub(crate) fn of(owner: &'static str, point: CommitPoint) -> Self {
        Self { owner, point }
    }

    /// Does what is to happen here.
    pub(crate) async fn reach(&self, moment: Moment) -> Result<(), crate::sql::Error> {
        let reached = Reached { owner: self.owner, point: self.point, moment };
        let planned = PLAN.try_with(|plan| plan(reached));
        match planned.unwrap_or_else(|_| armed(reached)) {
            Action::Pass => Ok(()),
            Action::Fail => {
                let cut =
                    io::Error::new(io::ErrorKind::ConnectionReset, format!("cut at {reached}"));
                Err(cut.into())
            }
            Action::Abort => std::process::abort(),
            Action::Wait(until) => {
                until.await;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: Reached =
        Reached { owner: "order", point: CommitPoint::Commands, moment: Moment::After };

    #[test]
    fn a_failpoint_acts_at_its_place_when_it_is_reached_for_the_nth_time() {
        let armed: Armed = "order.commands:after:error:2".parse().unwrap();
        let elsewhere = Reached { moment: Moment::Before, ..COMMITTED };
        let another = Reached { owner: "user", ..COMMITTED };
        let acts = [COMMITTED, elsewhere, another, COMMITTED, COMMITTED].map(|at| armed.acts(at));
        assert_eq!(acts, [false, false, false, true, false]);
    }

    #[test]
    fn a_star_is_any_owner() {
        let armed: Armed = "*.commands:after:pause=20".parse().unwrap();
        assert!(armed.acts(COMMITTED));
    }

    #[test]
    fn what_is_no_failpoint_is_refused() {
        for given in
            ["", "order:after:abort", "order.nothing:after:abort", "order.events:now:abort"]
        {
            assert!(given.parse::<Armed>().is_err(), "{given}");
        }
        assert!("order.events:after:explode".parse::<Armed>().is_err());
        assert!("order.events:after:abort:often".parse::<Armed>().is_err());
    }

    #[tokio::test]
    async fn a_plan_decides_for_its_future_alone() {
        let place = Place::of("order", CommitPoint::Commands);
        scope(|_| Action::Fail, async { place.reach(Moment::Before).await.unwrap_err() }).await;
        place.reach(Moment::Before).await.unwrap();
    }
}
