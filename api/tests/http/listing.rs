//! Lists of jobs by filter and page, and several jobs at once.

use serde_json::{Value, json};
use windlass_core::{JobId, Outcome};

use crate::support::{Api, with};

fn ids(list: &Value) -> Vec<String> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

impl Api {
    async fn made(&self, field: &str, value: Value) -> String {
        let answer = self.enqueue(with(field, value)).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn list(&self, query: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"), "{answer:?}");
        answer.json()
    }
}

#[tokio::test]
async fn jobs_are_listed_newest_first_by_filter() {
    let api = Api::new().await;
    assert_eq!(api.list("").await, json!({"jobs": [], "next_cursor": null}));
    let red = api.made("labels", json!({"team": "red:1", "a": "b"})).await;
    let post = api.made("queue", json!("post")).await;
    let later = api.made("delay", json!("1h")).await;
    let done = api.made("priority", json!(2)).await;
    api.finish(done.parse().unwrap(), Outcome::Succeeded { result: None, keep: None }).await;
    for (query, expected) in [
        ("", vec![&done, &later, &post, &red]),
        ("?label=team:red:1", vec![&red]),
        ("?label=team:red:1&label=a:b", vec![&red]),
        ("?label=team:red:1&label=a:c", vec![]),
        ("?queue=post", vec![&post]),
        ("?queue=post&state=scheduled", vec![]),
        ("?state=scheduled", vec![&later]),
        ("?state=succeeded&state=queued&state=queued", vec![&done, &post, &red]),
        ("?kind=other", vec![]),
        ("?kind=mail&limit=1000", vec![&done, &later, &post, &red]),
        ("?created_before=2020-01-01T00:00:00Z", vec![]),
        ("?created_after=2020-01-01T00:00:00%2B01:00", vec![&done, &later, &post, &red]),
        ("?created_after=2020-01-01T00:00:00Z&created_before=9999-01-01T00:00:00Z&queue=post", vec![&post]),
    ] {
        let list = api.list(query).await;
        assert_eq!(ids(&list).iter().collect::<Vec<_>>(), expected, "{query}");
        assert!(list["next_cursor"].is_null());
    }
    let shown = api.list("?state=succeeded").await["jobs"][0].clone();
    assert_eq!(shown, api.get(&format!("/v1/jobs/{done}")).await.json(), "as it is shown by itself");
}

#[tokio::test]
async fn a_cursor_goes_on_with_the_same_filter_only() {
    let api = Api::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(api.job().await.to_string());
    }
    made.reverse();
    let (mut seen, mut query) = (Vec::new(), "?limit=2&state=queued&kind=mail".to_owned());
    let mut cursors = Vec::new();
    loop {
        let page = api.list(&query).await;
        seen.extend(ids(&page));
        // What comes in meanwhile is not on later pages, and moves nothing.
        api.job().await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{cursor}");
        cursors.push(cursor.to_owned());
        // The order of the parameters and the limit are not part of the filter.
        query = format!("?cursor={cursor}&kind=mail&limit=2&state=queued&state=queued");
    }
    assert_eq!(seen, made);
    for query in ["", "&state=queued", "&state=queued&kind=other", "&state=queued&kind=mail&queue=letters"] {
        let answer = api.get(&format!("/v1/jobs?cursor={}{query}", cursors[0])).await;
        assert!(answer.problem(422)["detail"].as_str().unwrap().contains("another filter"));
        assert_eq!(answer.pointers(), ["query:cursor"]);
    }
}

#[tokio::test]
async fn several_jobs_are_read_at_once() {
    let api = Api::new().await;
    let (one, two) = (api.job().await, api.job().await);
    let unknown = JobId::new();
    let list = api.list(&format!("?id={one}&id={two}&id={unknown}&id={one}")).await;
    assert_eq!(ids(&list), [one.to_string(), two.to_string()], "in the order asked for, each once");
    assert!(list["next_cursor"].is_null());
    let hundred = vec![format!("id={one}"); 100].join("&");
    assert_eq!(ids(&api.list(&format!("?{hundred}")).await), [one.to_string()]);
    for (query, pointers) in [
        (format!("{hundred}&id={one}"), vec!["query:id"]),
        (format!("id={one}&id=x"), vec!["query:id"]),
        (format!("id={one}&limit=5&state=dead"), vec!["query:limit", "query:state"]),
    ] {
        let answer = api.get(&format!("/v1/jobs?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), pointers, "{query}");
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let api = Api::new().await;
    for (query, name) in [
        ("queue=a/b", "queue"),
        ("queue=a&queue=b", "queue"),
        ("kind=", "kind"),
        ("state=lost", "state"),
        ("label=x", "label"),
        ("label=x:1&label=x:2", "label"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2030-01-31", "created_before"),
        ("cursor=1", "cursor"),
        ("cursor=", "cursor"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("colour=red", "colour"),
    ] {
        let answer = api.get(&format!("/v1/jobs?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [format!("query:{name}")], "{query}");
    }
    let many: Vec<String> = (0..500).map(|number| format!("x{number}={number}")).collect();
    let answer = api.get(&format!("/v1/jobs?{}", many.join("&"))).await;
    answer.problem(422);
    assert_eq!(answer.pointers().len(), 20);
}
