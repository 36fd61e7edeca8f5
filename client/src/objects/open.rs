use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, local::LocalFileSystem};
use url::Url;

use super::{Objects, ObjectsError};

const REMEDY: &str =
    "write file:///path/to/folder, or s3://bucket/prefix with any of ?region=…&endpoint=https://… after it";

fn invalid(problem: impl Into<String>) -> ObjectsError {
    ObjectsError::Config { problem: problem.into(), remedy: REMEDY }
}

impl Objects {
    /// The object store at `url`, for texts of more than `above` bytes, each call to which may take as long as `deadline`.
    /// A bucket need not be reachable yet; a folder is made.
    ///
    /// # Errors
    /// [`ObjectsError::Config`] for a URL that can never work, or a kind of store that was not compiled in.
    pub fn open(url: &str, above: usize, deadline: Duration) -> Result<Self, ObjectsError> {
        // The rest of what has no known scheme may be a secret that ended up in the wrong place.
        let parsed = Url::parse(url).map_err(|_| invalid("is not a valid URL"))?;
        let (store, local) = match parsed.scheme() {
            "file" => (folder(url, &parsed)?, true),
            "s3" => (bucket(&parsed)?, false),
            _ => return Err(invalid("has no known scheme")),
        };
        Ok(Self { store, above, deadline, local })
    }
}

fn folder(text: &str, url: &Url) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    // What follows is taken as absolute otherwise, whatever was meant.
    let path = url.to_file_path().ok().filter(|_| text.starts_with("file:///"));
    let path = path.filter(|_| url.query().is_none() && url.fragment().is_none());
    let path = path.ok_or_else(|| invalid("is not the absolute path of a folder"))?;
    let made = std::fs::create_dir_all(&path).map_err(|error| error.to_string());
    let store =
        made.and_then(|()| LocalFileSystem::new_with_prefix(&path).map_err(|error| error.to_string()));
    let store = store.map_err(|error| ObjectsError::Config {
        problem: format!("names a folder that cannot be made: {error}"),
        remedy: "make it and let this process write there, or name another folder",
    })?;
    // What an accepted job needs must survive a loss of power as the job does.
    Ok(Arc::new(store.with_fsync(true)))
}

#[cfg(not(feature = "s3"))]
fn bucket(_: &Url) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    Err(ObjectsError::Config {
        problem: "begins with s3:, but this program was built without it".into(),
        remedy: "build it with the cargo feature `s3`",
    })
}

#[cfg(feature = "s3")]
fn bucket(url: &Url) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    use object_store::{
        RetryConfig,
        aws::{AmazonS3Builder, AmazonS3ConfigKey},
        path::Path,
        prefix::PrefixStore,
    };

    let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(|| invalid("names no bucket"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ObjectsError::Config {
            problem: "has credentials in it, which S3 takes from elsewhere".into(),
            remedy: "leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
        });
    }
    if url.port().is_some() || url.fragment().is_some() {
        return Err(invalid("has more in it than a bucket, a prefix and parameters"));
    }
    let prefix = Path::from_url_path(url.path()).map_err(|_| invalid("has a prefix that cannot be one"))?;
    // An outage is for the caller, who knows what waits.
    let retry =
        RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retry);
    for (key, value) in url.query_pairs() {
        match &*key {
            "region" => builder = builder.with_region(value),
            "endpoint" => {
                let plain = |url: &Url| {
                    matches!(url.scheme(), "http" | "https")
                        && url.username().is_empty()
                        && url.password().is_none()
                };
                let endpoint = Url::parse(&value).ok().filter(plain);
                endpoint.ok_or_else(|| invalid("has an endpoint that is no http(s) URL"))?;
                builder = builder.with_endpoint(value);
            }
            _ => return Err(invalid(format!("has a parameter {key:?} that S3 does not know"))),
        }
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http:")) {
        // As it was asked for in so many words. It is not AWS; a signature is wanted, but perhaps not looked at.
        builder = builder.with_allow_http(true);
        if builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId).is_none() {
            builder = builder.with_access_key_id("windlass").with_secret_access_key("windlass");
        }
    }
    // Fails if the user's program has chosen already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = builder.build().map_err(|error| invalid(format!("cannot be used: {error}")))?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_the_setting_and_without_secrets() {
        for url in [
            "",
            "hunter2",
            "gs://hunter2/x",
            "file:objects",
            "file://host/objects",
            "file:///objects?hunter2=1",
            "file:///dev/null/objects",
            "s3://",
            "s3:///prefix",
            "s3://key:hunter2@bucket",
            "s3://bucket:9000",
            "s3://bucket?endpoint=http://key:hunter2@host",
            "s3://bucket?endpoint=hunter2",
            "s3://bucket?unknown=hunter2",
        ] {
            let error = Objects::open(url, 0, Duration::from_secs(1)).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(matches!(error, ObjectsError::Config { .. }), "{url}: {shown}");
            let text = error.to_string();
            assert!(text.starts_with("objects_url ") && !text.contains('\n'), "{url}: {text}");
            assert!(!shown.contains("hunter2"), "{url}: {shown}");
        }
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_need_not_be_there_yet() {
        for url in ["s3://bucket", "s3://bucket/a/b?region=eu-west-1&endpoint=https://[::1]:9"] {
            Objects::open(url, 0, Duration::from_secs(1)).unwrap();
        }
    }
}
