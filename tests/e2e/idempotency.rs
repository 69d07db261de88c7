//! Requests that are repeated with one key count once, and are answered alike.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Kind, Reply, Stack, make};

on_every_deployment!(
    fifty_repeats_at_once_place_one_order_and_are_answered_alike,
    a_repeat_after_a_restart_is_answered_as_before,
    a_key_is_refused_for_anything_but_its_first_request,
    an_answer_that_was_no_success_is_not_kept,
    a_change_is_made_once_even_if_its_condition_does_not_hold_any_more,
    stock_and_money_that_come_in_count_once,
);

/// All that a repeat must have in common with the first answer.
fn essence(reply: &Reply) -> (u16, String, String, String) {
    let header = |name| reply.header(name).to_owned();
    (reply.status, header("location"), header("etag"), reply.text.clone())
}

async fn repeat(client: &Client, method: Method, path: &str, key: &str, body: &Value) -> Reply {
    client.ask(method, path).key(key).json(body).send().await
}

async fn fifty_repeats_at_once_place_one_order_and_are_answered_alike(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 1_000).await;
    let ada = stack.user(100_000).await;
    let order = make::order(&ada, &[("TEA", 2)]);
    let repeats: Vec<_> = (0..50)
        .map(|_| {
            let (client, order) = (stack.client.clone(), order.clone());
            tokio::spawn(async move {
                repeat(&client, Method::POST, "/v1/orders", "first-order", &order).await
            })
        })
        .collect();
    let mut answers = BTreeSet::new();
    for repeat in repeats {
        answers.insert(essence(&repeat.await.unwrap().expect(201)));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (_, location, tag, text) = answers.pop_first().unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(location, format!("/v1/orders/{}", answer["id"].as_str().unwrap()));
    assert_eq!((tag.as_str(), &answer["status"]), ("\"1\"", &json!("placed")));
    let orders = stack.all(&format!("/v1/orders?customer_id={ada}")).await;
    assert_eq!(orders.len(), 1, "{orders:?}");
    stack.until_status(answer["id"].as_str().unwrap(), "completed").await;
    let tea = stack.get("/v1/products/TEA").await.expect(200);
    assert_eq!(tea.body["on_hand"], 998);
    stack.ends_well().await;
}

async fn a_repeat_after_a_restart_is_answered_as_before(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 1_000).await;
    let ada = stack.user(100_000).await;
    let order = make::order(&ada, &[("TEA", 2)]);
    let place = async |stack: &Stack| {
        repeat(stack, Method::POST, "/v1/orders", "k", &order).await.expect(201)
    };
    let first = place(&stack).await;
    // The order moves on; the answer stays what it was.
    stack.until_status(first.body["id"].as_str().unwrap(), "completed").await;
    stack.stop().await;
    stack.restart().await;
    assert_eq!(essence(&place(&stack).await), essence(&first));
    stack.kill().await;
    stack.restart().await;
    assert_eq!(essence(&place(&stack).await), essence(&first));
    assert_eq!(stack.all("/v1/orders").await.len(), 1);
    stack.ends_well().await;
}

async fn a_key_is_refused_for_anything_but_its_first_request(kind: Kind) {
    let stack = Stack::start(kind).await;
    let first = make::product("TEA", 250, 10);
    repeat(&stack, Method::POST, "/v1/products", "k", &first).await.expect(201);
    let other = [
        (Method::POST, "/v1/products", make::product("TEA", 250, 11)),
        (Method::POST, "/v1/products", make::product("CUP", 250, 10)),
        (Method::POST, "/v1/products/TEA/receipts", json!({ "quantity": 1 })),
        (Method::PATCH, "/v1/products/TEA", json!({ "name": "Tea" })),
    ];
    for (method, path, body) in other {
        let reply = repeat(&stack, method, path, "k", &body).await.problem(422);
        assert!(reply.text.contains("key"), "{reply:?}");
    }
    // The same value, but not the same bytes.
    let spaced = stack.ask(Method::POST, "/v1/products").key("k");
    let spaced = spaced.header("content-type", "application/json").bytes(format!("{first} "));
    spaced.send().await.problem(422);
    repeat(&stack, Method::POST, "/v1/products", "k", &first).await.expect(201);
    let tea = stack.all("/v1/products").await;
    assert_eq!((tea.len(), &tea[0]["on_hand"]), (1, &json!(10)), "{tea:?}");
    stack.ends_well().await;
}

async fn an_answer_that_was_no_success_is_not_kept(kind: Kind) {
    let stack = Stack::start(kind).await;
    let ada = stack.user(100_000).await;
    let place = async |lines: &[(&str, i64)]| {
        repeat(&stack, Method::POST, "/v1/orders", "k", &make::order(&ada, lines)).await
    };
    place(&[("TEA", 2)]).await.invalid(&["/lines/0/sku"]);
    place(&[("TEA", 0)]).await.invalid(&["/lines/0/quantity"]);
    stack.product("TEA", 250, 10).await;
    let placed = place(&[("TEA", 2)]).await.expect(201);
    assert_eq!(essence(&place(&[("TEA", 2)]).await), essence(&placed));

    let order = placed.body["id"].as_str().unwrap();
    stack.until_status(order, "completed").await;
    let cancel = format!("/v1/orders/{order}/cancel");
    for _ in 0..2 {
        repeat(&stack, Method::POST, &cancel, "c", &json!({})).await.problem(409);
    }
    let other = stack.order(&ada, &[("TEA", 1)]).await;
    stack.until_status(&other, "completed").await;
    stack.ends_well().await;
}

async fn a_change_is_made_once_even_if_its_condition_does_not_hold_any_more(kind: Kind) {
    let stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let change = async |key: &str, name: &str, seen: &str| {
        let ask = stack.ask(Method::PATCH, "/v1/products/TEA").key(key).header("if-match", seen);
        ask.json(&json!({ "name": name })).send().await
    };
    change("a", "Assam", "\"0\"").await.problem(412);
    let first = change("a", "Assam", "\"1\"").await.expect(200);
    assert_eq!(first.header("etag"), "\"2\"");
    change("b", "Darjeeling", "\"2\"").await.expect(200);
    assert_eq!(essence(&change("a", "Assam", "\"1\"").await), essence(&first));
    let tea = stack.get("/v1/products/TEA").await.expect(200);
    assert_eq!((tea.header("etag"), &tea.body["name"]), ("\"3\"", &json!("Darjeeling")));
    stack.ends_well().await;
}

async fn stock_and_money_that_come_in_count_once(kind: Kind) {
    let mut stack = Stack::start(kind).await;
    stack.product("TEA", 250, 10).await;
    let ada = stack.user(0).await;
    let deposits = format!("/v1/users/{ada}/deposits");
    let receive = async |stack: &Stack, key: &str| {
        let body = json!({ "quantity": 5 });
        let reply = repeat(stack, Method::POST, "/v1/products/TEA/receipts", key, &body).await;
        reply.expect(200).body["on_hand"].as_i64().unwrap()
    };
    let deposit = async |stack: &Stack, key: &str| {
        let body = json!({ "amount": make::euros(700) });
        let reply = repeat(stack, Method::POST, &deposits, key, &body).await.expect(200);
        reply.body["balance"]["available"]["amount"].as_i64().unwrap()
    };
    for _ in 0..3 {
        assert_eq!((receive(&stack, "a").await, deposit(&stack, "a").await), (15, 700));
    }
    assert_eq!((receive(&stack, "b").await, deposit(&stack, "b").await), (20, 1_400));
    stack.kill().await;
    stack.restart().await;
    assert_eq!((receive(&stack, "a").await, deposit(&stack, "b").await), (15, 1_400));
    let tea = stack.get("/v1/products/TEA").await.expect(200);
    assert_eq!(tea.body["on_hand"], 20);
    let ada = stack.get(&format!("/v1/users/{ada}")).await.expect(200);
    assert_eq!(ada.body["balance"]["available"]["amount"], 1_400);
    stack.ends_well().await;
}
