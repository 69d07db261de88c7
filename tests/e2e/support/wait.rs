//! Waiting for a condition, with a bound.

use std::time::Duration;

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` if that takes too long.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(within, asking).await;
    answer.unwrap_or_else(|_| panic!("not within {within:?}: {what}"))
}
