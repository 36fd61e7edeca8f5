//! How an OpenAPI document is put together.

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use windlass_core::Scope;

use super::operations;
use crate::problem::Problem;

/// The whole document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = Schemas {
        asked: settings.clone().for_deserialize().into_generator(),
        shown: settings.for_serialize().into_generator(),
    };
    let mut paths = Map::new();
    for operation in operations::operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_lowercase();
        let scope = scope(&operation);
        path[&method] = operation.into_json(&mut schemas);
        path[&method]["security"] = match scope {
            // Where the instance asks for none, none is needed.
            Some(scope) => json!([{"bearer": [scope.to_string()]}, {}]),
            None => json!([]),
        };
    }
    let problem = schemas.shown.subschema_for::<Problem>();
    let mut definitions = schemas.shown.take_definitions(true);
    definitions.extend(schemas.asked.take_definitions(true));
    let responses: Map<String, Value> = PROBLEMS
        .iter()
        .map(|&(status, text)| (status.to_string(), refusal(status, text, &problem)))
        .collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Windlass",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            "description": operations::ABOUT,
        },
        "servers": [{"url": "/", "description": "The instance that serves this document"}],
        "tags": operations::TAGS.map(|(name, text)| json!({"name": name, "description": text})),
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": responses,
            "securitySchemes": {"bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A key made by `windlass keys create`, or a JSON Web Token, where the instance asks for one.",
            }},
            "headers": HEADERS.iter().map(|(name, header)| (*name, header.to_json())).collect::<std::collections::BTreeMap<_, _>>(),
        },
    });
    tidy(&mut document);
    document
}

/// What one must be allowed to do. A test sees to it that there is a route.
fn scope(operation: &Operation) -> Option<Scope> {
    let mut routes = crate::routes().into_iter();
    routes.find(|route| route.method == operation.method && route.path == operation.path)?.scope
}

/// The schemas of what is asked for, and of what is shown: there, fields that may be missing are told apart.
pub(super) struct Schemas {
    asked: SchemaGenerator,
    shown: SchemaGenerator,
}

type Of = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}

/// A method of a path.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Parameter>,
    body: Option<(Of, Value)>,
    answers: Vec<Answer>,
}

struct Parameter {
    name: &'static str,
    within: &'static str,
    required: bool,
    text: &'static str,
    schema: Of,
}

struct Answer {
    status: u16,
    text: &'static str,
    content: Option<(&'static str, Of)>,
    headers: Vec<&'static str>,
}

impl Operation {
    pub(super) fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self { method, path, id, summary, parameters: Vec::new(), body: None, answers: Vec::new() }
    }

    /// With a parameter in the path.
    pub(super) fn at<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter::<T>("path", name, text)
    }

    pub(super) fn query<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter::<T>("query", name, text)
    }

    pub(super) fn header<T: JsonSchema>(self, name: &'static str, text: &'static str) -> Self {
        self.parameter::<T>("header", name, text)
    }

    fn parameter<T: JsonSchema>(
        mut self,
        within: &'static str,
        name: &'static str,
        text: &'static str,
    ) -> Self {
        let required = within == "path";
        self.parameters.push(Parameter { name, within, required, text, schema: of::<T> });
        self
    }

    /// The parameter said last must be there.
    pub(super) fn required(mut self) -> Self {
        if let Some(parameter) = self.parameters.last_mut() {
            parameter.required = true;
        }
        self
    }

    /// With a body, and an example of one that is accepted.
    pub(super) fn body<T: JsonSchema>(mut self, example: Value) -> Self {
        self.body = Some((of::<T>, example));
        self
    }

    pub(super) fn answers<T: JsonSchema>(self, status: u16, text: &'static str) -> Self {
        self.answer(status, text, Some(("application/json", of::<T>)))
    }

    pub(super) fn answers_as<T: JsonSchema>(
        self,
        status: u16,
        text: &'static str,
        media_type: &'static str,
    ) -> Self {
        self.answer(status, text, Some((media_type, of::<T>)))
    }

    pub(super) fn answers_nothing(self, status: u16, text: &'static str) -> Self {
        self.answer(status, text, None)
    }

    /// Refused for a reason that is the operation's own.
    pub(super) fn refuses(self, status: u16, text: &'static str) -> Self {
        self.answers_as::<Problem>(status, text, "application/problem+json")
    }

    fn answer(mut self, status: u16, text: &'static str, content: Option<(&'static str, Of)>) -> Self {
        self.answers.push(Answer { status, text, content, headers: vec!["x-request-id"] });
        self
    }

    /// The answer said last has this header as well.
    pub(super) fn with(mut self, header: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push(header);
        }
        self
    }

    fn has(&self, within: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.within == within)
    }

    /// The refusals that operations of its form have in common.
    fn refusals(&self) -> Vec<u16> {
        let mut refusals = Vec::new();
        if self.has("path") || self.has("query") || self.body.is_some() {
            refusals.push(400);
        }
        if self.has("query") || self.body.is_some() {
            refusals.push(422);
        }
        if self.body.is_some() {
            refusals.extend([408, 413, 415]);
        }
        if self.path.starts_with("/v1/") || self.path == "/metrics" {
            refusals.extend([401, 403, 500, 503]);
        }
        if !crate::shed::is_probe(self.path) {
            refusals.push(429);
        }
        refusals
    }

    fn into_json(self, schemas: &mut Schemas) -> Value {
        let tag = self.path.trim_start_matches("/v1/").split('/').next().unwrap_or_default();
        let tag = if self.path.starts_with("/v1/") { tag } else { "service" };
        let mut operation =
            json!({"operationId": self.id, "summary": self.summary, "tags": [tag], "responses": {}});
        for status in self.refusals() {
            operation["responses"][status.to_string()] =
                json!({"$ref": format!("#/components/responses/{status}")});
        }
        for answer in &self.answers {
            operation["responses"][answer.status.to_string()] = answer.to_json(&mut schemas.shown);
        }
        let parameters: Vec<Value> =
            self.parameters.iter().map(|parameter| parameter.to_json(&mut schemas.asked)).collect();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some((schema, example)) = self.body {
            let content = json!({"schema": schema(&mut schemas.asked), "example": example});
            operation["requestBody"] = json!({"required": true, "content": {"application/json": content}});
        }
        operation
    }
}

impl Parameter {
    fn to_json(&self, schemas: &mut SchemaGenerator) -> Value {
        json!({
            "name": self.name, "in": self.within, "description": self.text, "required": self.required,
            "schema": (self.schema)(schemas),
        })
    }
}

impl Answer {
    fn to_json(&self, schemas: &mut SchemaGenerator) -> Value {
        let mut answer = json!({"description": self.text, "headers": headers(&self.headers)});
        if let Some((media_type, schema)) = self.content {
            answer["content"] = json!({media_type: {"schema": schema(schemas)}});
        }
        answer
    }
}

/// What may go wrong with any operation of its form.
const PROBLEMS: [(u16, &str); 10] = [
    (400, "The request cannot be read."),
    (401, "A key or token is needed, and none that is good has come."),
    (403, "The key or token does not allow this."),
    (408, "The body did not arrive in time; nothing was stored."),
    (413, "The body is too large."),
    (415, "The body is not JSON, or is compressed by something that is not known."),
    (422, "Fields are not as they should be: `errors` has a JSON pointer to each."),
    (429, "More requests than a rate allows, or more unfinished jobs than a quota does; nothing was stored."),
    (500, "Something went wrong here; the log has it under the `x-request-id`."),
    (
        503,
        "Not now. Unless `detail` says that nothing was stored, it may have been: repeat the request with its `Idempotency-Key`.",
    ),
];

fn refusal(status: u16, text: &str, problem: &Schema) -> Value {
    let names: &[&str] = match status {
        429 => &["x-request-id", "Retry-After", "RateLimit-Policy", "RateLimit"],
        409 | 503 => &["x-request-id", "Retry-After"],
        401 | 403 => &["x-request-id", "WWW-Authenticate"],
        415 => &["x-request-id", "Accept-Encoding"],
        _ => &["x-request-id"],
    };
    json!({
        "description": text,
        "headers": headers(names),
        "content": {"application/problem+json": {"schema": problem}},
    })
}

fn headers(names: &[&'static str]) -> Map<String, Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    names.iter().map(|name| ((*name).to_owned(), reference(name))).collect()
}

struct Header {
    text: &'static str,
    always: bool,
    schema: &'static str,
}

impl Header {
    fn to_json(&self) -> Value {
        json!({"description": self.text, "required": self.always, "schema": {"type": self.schema}})
    }
}

const fn header(text: &'static str, always: bool, schema: &'static str) -> Header {
    Header { text, always, schema }
}

/// The headers of answers, and whether an answer that may have one always does.
const HEADERS: [(&str, Header); 12] = [
    (
        "Accept-Encoding",
        header("What a body may be compressed by, if it was by something else.", false, "string"),
    ),
    ("WWW-Authenticate", header("What is missing, as RFC 6750 has it.", false, "string")),
    ("x-request-id", header("The request's own, if it has a plain one; the log has it.", true, "string")),
    ("ETag", header("Changes whenever the job does, for `If-None-Match`.", true, "string")),
    ("Location", header("Where to ask for what has been made.", true, "string")),
    ("Cache-Control", header("How long the answer may be kept.", true, "string")),
    ("Retry-After", header("In how many seconds to ask again.", false, "integer")),
    (
        "RateLimit-Policy",
        header("The rates that count the request: `\"key\";q=100;w=1` is 100 per second.", false, "string"),
    ),
    (
        "RateLimit",
        header(
            "How many more could come now, and in how many seconds all: `\"key\";r=50;t=1`.",
            false,
            "string",
        ),
    ),
    ("Preference-Applied", header("How long the request would have waited, by `Prefer`.", false, "string")),
    ("Idempotency-Replayed", header("`true` if an earlier request with the key made it.", false, "string")),
    (
        "Unique-Conflict",
        header("`existing` or `replaced` if the answer is a job that was there.", false, "string"),
    ),
];

/// Takes out what only Rust's documentation has a use for, and writes lists of constants as an `enum`.
fn tidy(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Object(object) => {
            object.values_mut().for_each(tidy);
            // The same, in a form that all generators of clients know.
            let anything = |schema: &&mut Value| **schema == Value::Bool(true);
            if let Some(schema) = object.get_mut("schema").filter(anything) {
                *schema = json!({});
            }
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                properties.values_mut().filter(anything).for_each(|schema| *schema = json!({}));
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = without_links(text);
            }
            constants(object);
        }
        _ => {}
    }
}

fn constants(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("oneOf") else { return };
    let constant = |choice: &Value| {
        let values = choice.get("const").map(|value| vec![value.clone()]);
        values.or_else(|| choice.get("enum")?.as_array().cloned())
    };
    let Some(values) = choices.iter().map(constant).collect::<Option<Vec<_>>>() else { return };
    let text = choices.iter().filter_map(|choice| {
        Some(format!("\n- `{}`: {}", choice.get("const")?.as_str()?, choice.get("description")?.as_str()?))
    });
    let before = object.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{before}\n{}", text.collect::<String>());
    object.insert("description".into(), text.trim().into());
    object.insert("type".into(), "string".into());
    object.insert("enum".into(), values.concat().into());
    object.remove("oneOf");
}

/// `[text](place)` and ``[`name`]`` as text.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((name, after)) = after.split_once(']') else {
            rest = after;
            plain.push('[');
            continue;
        };
        plain.push_str(name);
        rest = after.strip_prefix('(').and_then(|link| link.split_once(')')).map_or(after, |(_, rest)| rest);
    }
    plain.push_str(rest);
    // Lines are broken where the source's are.
    plain
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " ").replace(" - `", "\n- `"))
        .collect::<Vec<_>>()
        .join("\n\n")
}
