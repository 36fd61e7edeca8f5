//! Whether the document is true: [`check`] looks at every answer that any test here gets.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock, Mutex},
};

use axum::http::{Method, Request, header};
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use windlass_api::ApiOptions;
use windlass_client::UnknownKinds;
use windlass_core::{NewWebhook, Store as _, StoredSecret, WebhookFilter};

use crate::support::{Answer, Api};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());
/// As it is but for answers, whose objects have nothing that is not said.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = DOCUMENT.clone();
    close(&mut document["components"]["schemas"]);
    document
});
type Validators = Mutex<HashMap<(Method, String, u16), Option<Arc<Validator>>>>;
static VALIDATORS: LazyLock<Validators> = LazyLock::new(Mutex::default);

fn close(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(close),
        Value::Object(object) => {
            object.values_mut().for_each(close);
            if object.get("properties").is_some_and(Value::is_object) && object.contains_key("type") {
                object.entry("additionalProperties").or_insert(json!(false));
            }
        }
        _ => {}
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

/// The path of the document that a request's path is one of: the one with the fewest parameters.
fn template(path: &str) -> Option<&'static str> {
    let fits = |template: &str| {
        let (mut wanted, mut there) = (template.split('/'), path.split('/'));
        loop {
            match (wanted.next(), there.next()) {
                (None, None) => return true,
                (Some(wanted), Some(there)) if wanted == there => {}
                (Some(wanted), Some(there)) if wanted.starts_with('{') && !there.is_empty() => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str);
    paths.filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
}

/// The answer is one of those that the document has for its operation, in status, headers and body.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let Some(template) = template(path) else { return };
    let operation = &STRICT["paths"][template][method.as_str().to_lowercase()];
    if operation.is_null() {
        return;
    }
    let status = answer.status.as_u16();
    let described = &operation["responses"][status.to_string()];
    assert!(
        !described.is_null(),
        "{method} {template} has an answer that is not in the document: {answer:?}"
    );
    let described = resolved(&STRICT, described);
    for (name, described) in described["headers"].as_object().into_iter().flatten() {
        let required = resolved(&STRICT, described)["required"] == true;
        assert!(!required || answer.headers.contains_key(name.as_str()), "no {name}: {answer:?}");
    }
    let content_type = answer.header("content-type");
    let Some(content) = described["content"].as_object() else {
        assert!(answer.body.is_empty(), "{method} {template} has a body: {answer:?}");
        return;
    };
    let media_type = content_type.split(';').next().unwrap();
    assert!(content.contains_key(media_type), "{method} {template} is {content_type}: {answer:?}");
    if !media_type.ends_with("json") {
        return;
    }
    let key = (method.clone(), template.to_owned(), status);
    let validator = VALIDATORS
        .lock()
        .unwrap()
        .entry(key)
        .or_insert_with(|| {
            let mut schema = json!({"allOf": [content[media_type]["schema"]]});
            schema["components"] = STRICT["components"].clone();
            Some(Arc::new(
                jsonschema::options().offline().should_validate_formats(true).build(&schema).unwrap(),
            ))
        })
        .clone();
    // Numbers beyond what can be read here are a handler's, in its result.
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return };
    let errors = validator.iter().flat_map(|validator| validator.iter_errors(&body));
    let errors: Vec<String> = errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {template}: {errors:#?}\n{body:#}");
}

/// An object of a request: where it is, and what the document says it may have.
struct Place {
    pointer: String,
    fields: BTreeSet<String>,
}

/// All objects of a schema that are given by their fields.
fn places(schema: &Value, pointer: &str, found: &mut Vec<Place>) {
    let schema = resolved(&DOCUMENT, schema);
    if let Some([only, null]) = schema["anyOf"].as_array().map(Vec::as_slice)
        && null["type"] == "null"
    {
        return places(only, pointer, found);
    }
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], false, "{pointer} takes unknown fields");
        found.push(Place { pointer: pointer.to_owned(), fields: properties.keys().cloned().collect() });
        for (name, property) in properties {
            places(property, &format!("{pointer}/{name}"), found);
        }
    }
    if schema["items"].is_object() {
        places(&schema["items"], &format!("{pointer}/0"), found);
    }
}

/// The object of a body at a place, made where it is not there.
fn object<'a>(body: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    let mut at = body;
    for name in pointer.split('/').skip(1) {
        at = match at {
            Value::Array(list) => &mut list[name.parse::<usize>().unwrap()],
            other => &mut other[name],
        };
    }
    if at.is_null() {
        *at = json!({});
    }
    at.as_object_mut().unwrap()
}

/// Each operation with a body: method, path with its parameters filled in, schema, example.
fn with_bodies() -> Vec<(Method, String, &'static Value, &'static Value)> {
    let mut found = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"];
            if !content.is_null() {
                let method = method.to_uppercase().parse().unwrap();
                found.push((
                    method,
                    path.replace("{name}", "some").replace("{tenant}", "some"),
                    &content["schema"],
                    &content["example"],
                ));
            }
        }
    }
    assert!(found.len() >= 10, "{found:?}");
    found
}

async fn api() -> Api {
    let api = Api::with(ApiOptions { unknown_kinds: UnknownKinds::Accept, ..ApiOptions::default() }).await;
    let (id, secret) = (THERE.parse().unwrap(), StoredSecret::new("\"\""));
    let webhook = NewWebhook {
        id,
        tenant: None,
        url: String::new(),
        filter: WebhookFilter::default(),
        enabled: true,
        secret,
    };
    assert!(api.store.webhooks().create_webhook(&webhook).await.unwrap());
    api
}

/// The id of what is there to be changed.
const THERE: &str = "0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f";

async fn send(api: &Api, method: &Method, path: &str, body: &Value) -> Answer {
    let path = path.replace("{id}", THERE);
    let request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    api.send(request.body(body.to_string().into()).unwrap()).await
}

/// What is wrong with the request, also if only one job of a batch is.
fn errors(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.json();
    let problem = if body["jobs"].is_array() { &body["jobs"][0]["error"] } else { &body };
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    errors.iter().map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
}

/// The names in "unknown field; known are these, and those".
fn known(detail: &str) -> BTreeSet<String> {
    let names = detail.split_once("known are ").or(detail.split_once("known is "));
    let (_, names) = names.unwrap_or_else(|| panic!("{detail:?} names none"));
    names.replace("; or ", ", ").split(", ").map(str::to_owned).collect()
}

#[tokio::test]
async fn examples_are_accepted() {
    let api = api().await;
    for (method, path, _, example) in with_bodies() {
        let answer = send(&api, &method, &path, example).await;
        assert!(answer.status.is_success(), "{method} {path}: {answer:?}");
        assert_eq!(errors(&answer), [], "{method} {path}");
    }
}

#[tokio::test]
async fn fields_of_bodies_are_those_that_are_taken() {
    let api = api().await;
    for (method, path, schema, example) in with_bodies() {
        let mut found = Vec::new();
        places(schema, "", &mut found);
        for Place { pointer, fields } in found {
            let mut body = example.clone();
            object(&mut body, &pointer).insert("nobody-knows".into(), json!(1));
            let errors = errors(&send(&api, &method, &path, &body).await);
            let wanted = format!("{pointer}/nobody-knows");
            let (_, detail) = errors.iter().find(|(at, _)| at.ends_with(&wanted)).unwrap_or_else(|| {
                panic!("{method} {path} takes {wanted}: {errors:?}");
            });
            assert_eq!(known(detail), fields, "{method} {path}: {pointer}");
            object(&mut body, &pointer).insert("nobody-knows".into(), Value::Null);
            let errors = self::errors(&send(&api, &method, &path, &body).await);
            assert!(
                errors.iter().any(|(at, _)| at.ends_with(&wanted)),
                "{method} {path} takes {wanted}: null"
            );
            // And each of them is read, not only named.
            let mut body = example.clone();
            for field in &fields {
                object(&mut body, &pointer).entry(field.as_str()).or_insert(Value::Null);
            }
            let errors = self::errors(&send(&api, &method, &path, &body).await);
            assert!(!errors.iter().any(|(_, detail)| detail.starts_with("unknown")), "{path}: {errors:?}");
        }
    }
}

#[tokio::test]
async fn parameters_of_queries_are_those_that_are_taken() {
    let api = api().await;
    let id = api.job().await;
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        let parameters = methods["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let names = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let names: BTreeSet<String> = names.map(|name| name["name"].as_str().unwrap().to_owned()).collect();
        if names.is_empty() {
            continue;
        }
        let answer = api
            .get(&format!("{}?nobody-knows=1", path.replace("{id}", &id.to_string()).replace("{name}", "a")))
            .await;
        answer.problem(422);
        let errors = errors(&answer);
        assert_eq!(errors.len(), 1, "{path}: {errors:?}");
        assert_eq!(errors[0].0, "query:nobody-knows", "{path}");
        assert_eq!(known(&errors[0].1), names, "{path}");
    }
}

#[tokio::test]
async fn both_are_served() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await;
    assert_eq!(document.json(), *DOCUMENT);
    let page = api.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    // It is whole: nothing is loaded from elsewhere.
    assert!(page.contains("openapi.json") && !page.contains("//cdn") && !page.contains("src="), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"));
}

#[test]
fn answers_that_are_not_described_are_noticed() {
    let check = |status: u16, kind: &'static str, body: &'static str| {
        let headers = [("content-type", kind), ("x-request-id", "1")];
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let answer = Answer { status: status.try_into().unwrap(), headers, body: body.into() };
        std::panic::catch_unwind(|| check(&Method::GET, "/readyz", &answer)).is_ok()
    };
    let json = "application/json";
    assert!(check(200, json, r#"{"store": "ok", "broker": "ok"}"#));
    assert!(!check(201, json, r#"{"store": "ok", "broker": "ok"}"#));
    assert!(!check(200, "text/plain", r#"{"store": "ok", "broker": "ok"}"#));
    assert!(!check(200, json, r#"{"store": "ok"}"#));
    assert!(!check(200, json, r#"{"store": "ok", "broker": "ok", "more": 1}"#));
    assert!(!check(200, json, r#"{"store": 1, "broker": "ok"}"#));
}
