//! The ways of an order, each to its end.

use crate::support::{Kind, Stack};

on_both!(an_order_that_can_be_met_is_completed);

async fn an_order_that_can_be_met_is_completed(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(10_00).await;
    let order = stack.order(&ada, &[("TEA", 3)]).await;
    stack.until_status(&order, "completed").await;
    stack.ends_well().await;
}
