//! Bodies that come compressed, whatever they become, and answers that are.

use async_compression::tokio::{bufread, write};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass_api::ApiOptions;

use crate::{
    connections::BODY,
    support::{Answer, Api, enqueue},
};

const CODINGS: [&str; 3] = ["gzip", "zstd", "br"];

async fn pack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = write::$encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "gzip" => pack!(GzipEncoder),
        "zstd" => pack!(ZstdEncoder),
        _ => {
            let quick = async_compression::Level::Fastest;
            let mut encoder = write::BrotliEncoder::with_quality(Vec::new(), quick);
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }
    }
}

async fn unpack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    let read = match coding {
        "gzip" => bufread::GzipDecoder::new(bytes).read_to_end(&mut unpacked).await,
        "zstd" => bufread::ZstdDecoder::new(bytes).read_to_end(&mut unpacked).await,
        "br" => bufread::BrotliDecoder::new(bytes).read_to_end(&mut unpacked).await,
        _ => panic!("not compressed: {coding:?}"),
    };
    read.unwrap();
    unpacked
}

async fn send(api: &Api, coding: &str, body: impl Into<Body>) -> Answer {
    api.send(enqueue().header(header::CONTENT_ENCODING, coding).body(body.into()).unwrap()).await
}

/// A body that comes in pieces of this size.
fn in_pieces(bytes: &[u8], size: usize) -> Body {
    let pieces: Vec<_> = bytes.chunks(size).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    Body::from_stream(futures::stream::iter(pieces))
}

#[tokio::test]
async fn bodies_may_come_compressed() {
    let api = Api::new().await;
    for coding in CODINGS {
        let packed = pack(coding, BODY.as_bytes()).await;
        assert_eq!(send(&api, coding, packed.clone()).await.status, StatusCode::ACCEPTED, "{coding}");
        // However it comes, and however large it is.
        let large = json!({"kind": "mail", "payload": "x".repeat(900_000)}).to_string();
        for (packed, size) in [(packed, 1), (pack(coding, large.as_bytes()).await, 100)] {
            let answer = send(&api, coding, in_pieces(&packed, size)).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{coding}: {answer:?}");
        }
    }
    assert_eq!(send(&api, "identity", BODY).await.status, StatusCode::ACCEPTED);
    let upper = pack("gzip", BODY.as_bytes()).await;
    assert_eq!(send(&api, "GZIP", upper).await.status, StatusCode::ACCEPTED);
    // So may batches.
    let batch = json!({"jobs": [{"kind": "mail", "payload": 1}]}).to_string();
    let request = Request::post("/v1/jobs/batch").header("content-type", "application/json");
    let packed = pack("zstd", batch.as_bytes()).await;
    let answer = api.send(request.header("content-encoding", "zstd").body(packed.into()).unwrap()).await;
    assert_eq!((answer.status, answer.json()["jobs"][0]["error"].is_null()), (StatusCode::OK, true));
    assert_eq!(api.jobs().await, 12);
}

#[tokio::test]
async fn what_becomes_too_large_is_refused_when_it_does() {
    let api = Api::with(ApiOptions { max_body: 100_000, ..ApiOptions::default() }).await;
    for coding in CODINGS {
        // Spaces, which JSON may begin with: in the end there is even a job.
        let bomb = [" ".repeat(50_000_000).as_bytes(), BODY.as_bytes()].concat();
        let packed = pack(coding, &bomb).await;
        assert!(packed.len() < 100_000 || coding == "gzip", "{coding}: {} bytes", packed.len());
        let problem = send(&api, coding, in_pieces(&packed, 10_000)).await.problem(413);
        assert!(problem["detail"].as_str().unwrap().contains("100000 bytes"), "{problem}");
        let just = [" ".repeat(100_000 - BODY.len()).as_bytes(), BODY.as_bytes()].concat();
        assert_eq!(send(&api, coding, pack(coding, &just).await).await.status, StatusCode::ACCEPTED);
    }
    // Blocks without content, for ever.
    let mut endless = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
    endless.extend(b"\0\0\0\xff\xff".repeat(40_000));
    send(&api, "gzip", in_pieces(&endless, 10_000)).await.problem(413);
    assert_eq!(api.jobs().await, 3);
}

#[tokio::test]
async fn what_is_damaged_or_unknown_is_refused() {
    let api = Api::new().await;
    for coding in CODINGS {
        let whole = pack(coding, BODY.as_bytes()).await;
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("no such thing", b"{\"kind\": \"mail\", \"payload\": 1}".to_vec()),
            ("cut short", whole[..whole.len() - 1].to_vec()),
            ("more", [&whole[..], b"more"].concat()),
            ("again", [&whole[..], &whole[..]].concat()),
        ] {
            let problem = send(&api, coding, bytes).await.problem(400);
            assert_eq!(problem["type"], "urn:windlass:problem:malformed", "{coding}: {what}");
        }
    }
    for coding in ["deflate", "gzip, gzip", "aws-chunked", ""] {
        let answer = send(&api, coding, BODY).await;
        answer.problem(415);
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd, br", "{coding}");
    }
    let twice = enqueue().header("content-encoding", "gzip").header("content-encoding", "gzip");
    api.send(twice.body(pack("gzip", BODY.as_bytes()).await.into()).unwrap()).await.problem(415);
    assert_eq!(api.stored().await, 0);
}

#[tokio::test]
async fn unpacking_takes_no_more_memory_than_there_is_for_bodies() {
    // Windows of 16 MiB and of 1 GiB.
    let too_wide: [(&str, &[u8]); 3] = [
        ("zstd", b"\x28\xb5\x2f\xfd\x00\x70aaaaaaaaaaaaaa"),
        ("zstd", b"\x28\xb5\x2f\xfd\x00\xa0aaaaaaaaaaaaaa"),
        ("br", b"\x11\x1eaaaaaaaa"),
    ];
    let api = Api::new().await;
    for (coding, bytes) in too_wide {
        let problem = send(&api, coding, bytes).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().contains("smaller window"), "{problem}");
    }
    let small = Api::with(ApiOptions { body_memory: 1_000_000, ..ApiOptions::default() }).await;
    // 8 MiB may be, but not here.
    send(&small, "zstd", &b"\x28\xb5\x2f\xfd\x00\x68aaaaaaaaaaaaaa"[..]).await.problem(503);
    // What it took has been given back, each time.
    let packed = pack("gzip", BODY.as_bytes()).await;
    for _ in 0..20 {
        assert_eq!(send(&small, "gzip", packed.clone()).await.status, StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_can_read_them() {
    let api = Api::new().await;
    let body = json!({"kind": "mail", "payload": 1, "labels": {"long": "x".repeat(200)}}).to_string();
    let id = api.enqueue(body).await.json()["id"].as_str().unwrap().to_owned();
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.send(request.body(Body::empty()).unwrap()).await
    };
    let plain = get("/openapi.json", &[]).await;
    assert_eq!(plain.header("content-encoding"), "");
    for coding in CODINGS {
        let answer = get("/openapi.json", &[("accept-encoding", coding)]).await;
        assert_eq!(answer.header("content-encoding"), coding);
        assert!(answer.body.len() < plain.body.len() / 4, "{coding}: {}", answer.body.len());
        assert_eq!(unpack(coding, &answer.body).await, plain.body);
    }
    for answer in [plain, get("/openapi.json", &[("accept-encoding", "zstd")]).await] {
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert!(vary.iter().any(|name| *name == "accept-encoding"), "{vary:?}");
    }
    // What is small is not worth it.
    let small = get(&format!("/v1/jobs/{id}"), &[("accept-encoding", "gzip")]).await;
    assert!(small.body.len() < 1024 && small.header("content-encoding").is_empty(), "{small:?}");
    assert!(small.header("etag").starts_with('"'));
}

#[tokio::test]
async fn tags_hold_for_compressed_answers_as_well() {
    let api = Api::new().await;
    let labels: serde_json::Map<_, _> =
        (0..10).map(|at| (format!("label-{at}"), "x".repeat(200).into())).collect();
    let body = json!({"kind": "mail", "payload": 1, "labels": labels}).to_string();
    let path = api.enqueue(body).await.header("location").to_owned();
    let get = async |coding: &str, tag: &str| {
        let request = Request::get(&path).header("accept-encoding", coding).header("if-none-match", tag);
        api.send(request.body(Body::empty()).unwrap()).await
    };
    let packed = get("gzip", "").await;
    let plain = get("identity", "").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    // They are not the same byte for byte, but the same job.
    assert_eq!(packed.header("etag"), format!("W/{}", plain.header("etag")));
    for tag in [packed.header("etag"), plain.header("etag")] {
        for coding in ["gzip", "identity"] {
            assert_eq!(get(coding, tag).await.status, StatusCode::NOT_MODIFIED, "{coding} {tag}");
        }
    }
}

#[tokio::test]
async fn streams_are_not_compressed() {
    let api = Api::new().await;
    let id = api.job().await;
    let request = Request::get(format!("/v1/jobs/{id}/events")).header("accept-encoding", "gzip");
    let response = tower::ServiceExt::oneshot(api.router.clone(), request.body(Body::empty()).unwrap());
    let response = response.await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(!response.headers().contains_key("content-encoding"));
}
