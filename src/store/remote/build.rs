//! The client of a kind of store, from what the user said, the environment, the profile file and the machine.

use super::env::Env;
use super::keys;
use super::wire::Connector;
use super::{Addressing, RemoteKind, RemoteOptions, RemotePlace};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use std::time::Duration;
use url::Url;

/// A connection that is not there by then never will be.
const CONNECT_TIMEOUT: &str = "5 seconds";
/// Tries after the first. With the times between them they take a few seconds; who calls has its own pace beyond that.
const RETRIES_MAX: usize = 6;

/// A client of the store at `place`, whose requests go over `wire`. An error is one sentence.
pub fn client(
    place: &RemotePlace,
    options: &RemoteOptions,
    env: &Env,
    wire: Connector,
) -> Result<Box<dyn ObjectStore>, String> {
    match place.kind {
        RemoteKind::S3 => s3(place, options, env, wire),
        RemoteKind::Google => google(place, options, env, wire),
        RemoteKind::Azure => azure(place, options, env, wire),
    }
}

fn retry(options: &RemoteOptions) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: options.request_timeout / 6, base: 3.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: options.request_timeout }
}

/// What all kinds are told about HTTP.
fn http(endpoint: Option<&str>) -> Vec<(ClientConfigKey, String)> {
    let without_tls = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    vec![
        (ClientConfigKey::AllowHttp, without_tls.to_string()),
        (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT.into()),
    ]
}

fn s3(
    place: &RemotePlace,
    options: &RemoteOptions,
    env: &Env,
    wire: Connector,
) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = s3_of(env);
    builder = builder.with_bucket_name(&place.bucket);
    let said = |builder: &AmazonS3Builder, key: S3Key| builder.get_config_value(&key);
    let profile = keys::choose(options, env, wire.0.clock.clone())?;
    if let Some(keys) = profile.keys {
        builder = builder.with_credentials(keys);
    }
    let region = options.region.clone().or_else(|| said(&builder, S3Key::Region)).or(profile.region);
    builder = builder.with_region(region.unwrap_or_else(|| "us-east-1".into()));
    let endpoint = endpoint(place, options, env);
    let hosted = match (options.addressing, &endpoint) {
        (Some(form), _) => form == Addressing::VirtualHosted,
        (None, _) if env.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some() => {
            said(&builder, S3Key::VirtualHostedStyleRequest).as_deref() == Some("true")
        }
        // The certificate of Amazon's does not cover a bucket with dots in its name.
        (None, None) => !place.bucket.contains('.'),
        (None, Some(_)) => false,
    };
    builder = builder.with_virtual_hosted_style_request(hosted);
    if let Some(endpoint) = &endpoint {
        let endpoint = if hosted { with_bucket(endpoint, &place.bucket)? } else { checked(endpoint)?.into() };
        builder = builder.with_config(S3Key::S3Endpoint, endpoint.trim_end_matches('/'));
    }
    for (key, value) in http(endpoint.as_deref()) {
        builder = builder.with_config(S3Key::Client(key), value);
    }
    let built = builder
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One object, one request that every service knows.
        .with_disable_bulk_delete(true)
        .with_retry(retry(options))
        .with_http_connector(wire)
        .build();
    built.map(|store| Box::new(store) as _).map_err(|e| unusable(place, &e))
}

fn google(
    place: &RemotePlace,
    options: &RemoteOptions,
    env: &Env,
    wire: Connector,
) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = google_of(env);
    builder = builder.with_bucket_name(&place.bucket);
    let endpoint = endpoint(place, options, env);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(checked(endpoint)?);
    }
    for (key, value) in http(endpoint.as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let built = builder.with_retry(retry(options)).with_http_connector(wire).build();
    built.map(|store| Box::new(store) as _).map_err(|e| unusable(place, &e))
}

fn azure(
    place: &RemotePlace,
    options: &RemoteOptions,
    env: &Env,
    wire: Connector,
) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = azure_of(env);
    builder = builder.with_url(format!("az://{}", place.bucket));
    let endpoint = endpoint(place, options, env);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(checked(endpoint)?.into());
    }
    // The emulator answers without TLS, at an address of its own.
    let emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|used| used == "true");
    for (key, value) in http(endpoint.as_deref().or(emulator.then_some("http://"))) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let built = builder.with_retry(retry(options)).with_http_connector(wire).build();
    built.map(|store| Box::new(store) as _).map_err(|e| unusable(place, &e))
}

fn s3_of(env: &Env) -> AmazonS3Builder {
    let of = |builder: AmazonS3Builder, (name, value): (String, &str)| match name.parse() {
        Ok(key) => builder.with_config(key, value),
        Err(_) => builder,
    };
    env.with_prefix("AWS_").fold(AmazonS3Builder::new(), of)
}

fn google_of(env: &Env) -> GoogleCloudStorageBuilder {
    let of = |builder: GoogleCloudStorageBuilder, (name, value): (String, &str)| match name.parse() {
        Ok(key) => builder.with_config(key, value),
        Err(_) => builder,
    };
    let builder = match env.get("SERVICE_ACCOUNT") {
        Some(account) => GoogleCloudStorageBuilder::new().with_service_account_path(account),
        None => GoogleCloudStorageBuilder::new(),
    };
    env.with_prefix("GOOGLE_").fold(builder, of)
}

fn azure_of(env: &Env) -> MicrosoftAzureBuilder {
    let of = |builder: MicrosoftAzureBuilder, (name, value): (String, &str)| match name.parse() {
        Ok(key) => builder.with_config(key, value),
        Err(_) => builder,
    };
    let builder = env.with_prefix("AZURE_").fold(MicrosoftAzureBuilder::new(), of);
    match env.get("IDENTITY_ENDPOINT") {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    }
}

/// Where the service is asked for, without a `/` at its end, if something says so.
pub fn endpoint(place: &RemotePlace, options: &RemoteOptions, env: &Env) -> Option<String> {
    let of_env = || match place.kind {
        RemoteKind::S3 => {
            let builder = s3_of(env);
            let said = builder.get_config_value(&S3Key::S3Endpoint);
            let said = said.or_else(|| builder.get_config_value(&S3Key::Endpoint));
            said.or_else(|| keys::profile(options, env).ok()?.1.endpoint)
        }
        RemoteKind::Google => google_of(env).get_config_value(&GoogleConfigKey::BaseUrl),
        RemoteKind::Azure => azure_of(env).get_config_value(&AzureConfigKey::Endpoint),
    };
    let endpoint = options.endpoint.clone().or_else(of_env);
    endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned())
}

/// The endpoint, if it can be one.
fn checked(endpoint: &str) -> Result<&str, String> {
    let usable = Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    usable.then_some(endpoint).ok_or_else(|| format!("the endpoint {endpoint:?} is no http:// or https:// URL"))
}

/// The endpoint with the bucket before its host, unless it is there already.
fn with_bucket(endpoint: &str, bucket: &str) -> Result<String, String> {
    let mut url = Url::parse(checked(endpoint)?).map_err(|e| e.to_string())?;
    let host = url.host_str().unwrap_or_default().to_owned();
    if !host.starts_with(&format!("{bucket}.")) {
        let hosted = url.set_host(Some(&format!("{bucket}.{host}")));
        hosted.map_err(|_| {
            format!("the endpoint {endpoint:?} takes no bucket before its host; leave out virtual-hosted")
        })?;
    }
    Ok(url.into())
}

fn unusable(place: &RemotePlace, error: &object_store::Error) -> String {
    format!("{place} cannot be used: {error}")
}
