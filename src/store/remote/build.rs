//! The client of a kind of store, from what the user said, the environment, the profile file and the machine.

use super::profile::{Profile, ProfileFiles};
use super::wire::Connector;
use super::{Addressing, RemoteKind, RemoteOptions, RemotePlace};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key, AwsCredential, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::StaticCredentialProvider;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A connection that is not there by then never will be.
const CONNECT_TIMEOUT: &str = "5 seconds";
/// Tries after the first. With the times between them they take a few seconds; who calls has its own pace beyond that.
const RETRIES_MAX: usize = 6;

/// The environment of this process.
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A client of the store at `place`, whose requests go over `wire`. An error is one sentence.
pub fn client(place: &RemotePlace, options: &RemoteOptions, wire: Connector) -> Result<Box<dyn ObjectStore>, String> {
    match place.kind {
        RemoteKind::S3 => s3(place, options, wire),
        RemoteKind::Google => google(place, options, wire),
        RemoteKind::Azure => azure(place, options, wire),
    }
}

fn retry(options: &RemoteOptions) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 3.0 };
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

fn s3(place: &RemotePlace, options: &RemoteOptions, wire: Connector) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&place.bucket);
    let said = |builder: &AmazonS3Builder, key: S3Key| builder.get_config_value(&key).filter(|v| !v.is_empty());
    let profile = s3_profile(options, said(&builder, S3Key::AccessKeyId).is_some())?;
    if let Some((id, secret)) = profile.keys {
        // As one, since a token of the environment belongs to its keys.
        let keys = AwsCredential { key_id: id, secret_key: secret, token: profile.token };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(keys)));
    }
    let region = options.region.clone().or_else(|| said(&builder, S3Key::Region)).or(profile.region);
    builder = builder.with_region(region.unwrap_or_else(|| "us-east-1".into()));
    let of_env = || said(&builder, S3Key::S3Endpoint).or_else(|| said(&builder, S3Key::Endpoint));
    let endpoint = options.endpoint.clone().or_else(of_env).or(profile.endpoint);
    let hosted = match (options.addressing, &endpoint) {
        (Some(form), _) => form == Addressing::VirtualHosted,
        (None, _) if env("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some() => {
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

/// The profile that counts: the one the user named, else that of the environment if it has no keys itself.
fn s3_profile(options: &RemoteOptions, env_has_keys: bool) -> Result<Profile, String> {
    let named = options.profile.clone().or_else(|| env("AWS_PROFILE"));
    let files = ProfileFiles::of_env(&env);
    let name = named.as_deref().unwrap_or("default");
    let found = match files.read(name) {
        // Nobody asked for it.
        Err(_) if named.is_none() => None,
        found => found?,
    };
    let mut profile = match (found, &named) {
        (Some(profile), _) => profile,
        (None, None) => Profile::default(),
        (None, Some(name)) => {
            return Err(format!(
                "there is no profile {name} in the AWS files; `aws configure list-profiles` shows them"
            ));
        }
    };
    let role_of_env = env("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && env("AWS_ROLE_ARN").is_some();
    if options.profile.is_none() && (env_has_keys || role_of_env) {
        profile.keys = None;
    }
    if options.profile.is_some() && profile.keys.is_none() {
        return Err(format!(
            "the profile {name} has no access key and secret key; `aws configure --profile {name}` puts them there"
        ));
    }
    Ok(profile)
}

fn google(place: &RemotePlace, options: &RemoteOptions, wire: Connector) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&place.bucket);
    let of_env = || builder.get_config_value(&GoogleConfigKey::BaseUrl).filter(|v| !v.is_empty());
    let endpoint = options.endpoint.clone().or_else(of_env);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(checked(endpoint)?.trim_end_matches('/'));
    }
    for (key, value) in http(endpoint.as_deref()) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let built = builder.with_retry(retry(options)).with_http_connector(wire).build();
    built.map(|store| Box::new(store) as _).map_err(|e| unusable(place, &e))
}

fn azure(place: &RemotePlace, options: &RemoteOptions, wire: Connector) -> Result<Box<dyn ObjectStore>, String> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(format!("az://{}", place.bucket));
    let of_env = || builder.get_config_value(&AzureConfigKey::Endpoint).filter(|v| !v.is_empty());
    let endpoint = options.endpoint.clone().or_else(of_env);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(checked(endpoint)?.trim_end_matches('/').into());
    }
    // The emulator answers without TLS, at an address of its own.
    let emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|used| used == "true");
    for (key, value) in http(endpoint.as_deref().or(emulator.then_some("http://"))) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let built = builder.with_retry(retry(options)).with_http_connector(wire).build();
    built.map(|store| Box::new(store) as _).map_err(|e| unusable(place, &e))
}

/// Where the service is asked for, if something says so: what [`client`] would use.
pub fn endpoint(place: &RemotePlace, options: &RemoteOptions) -> Option<String> {
    let said = match place.kind {
        RemoteKind::S3 => {
            let builder = AmazonS3Builder::from_env();
            let value = |key: S3Key| builder.get_config_value(&key).filter(|v| !v.is_empty());
            let of_profile = || s3_profile(options, value(S3Key::AccessKeyId).is_some()).ok()?.endpoint;
            value(S3Key::S3Endpoint).or_else(|| value(S3Key::Endpoint)).or_else(of_profile)
        }
        RemoteKind::Google => GoogleCloudStorageBuilder::from_env().get_config_value(&GoogleConfigKey::BaseUrl),
        RemoteKind::Azure => MicrosoftAzureBuilder::from_env().get_config_value(&AzureConfigKey::Endpoint),
    };
    let endpoint = options.endpoint.clone().or(said).filter(|endpoint| !endpoint.is_empty());
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
