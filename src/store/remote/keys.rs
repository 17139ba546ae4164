//! Whose keys an S3 store is asked with: those of the profile the user named, else of the environment, else of the profile
//! that the environment names, else of the default profile. Without any the client asks the machine.

use super::RemoteOptions;
use super::env::Env;
use super::profile::{Keys, Profile, ProfileFiles};
use crate::base::clock::Clock;
use futures_util::future::BoxFuture;
use object_store::aws::AwsCredential;
use object_store::client::CredentialProvider;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Keys are read again after that long: tools that fetch keys which end write them to the file before they do.
const FRESH: Duration = Duration::from_secs(60);

/// What a user reads who has none.
pub const NO_KEYS: &str = "there are no keys for the store: neither the environment nor a profile file has them, and this machine \
                           has no role; `aws configure` makes a profile";

/// Whose keys the store is asked with, and where it is.
pub struct Chosen {
    /// Those of the profile; `None`: those of the environment, or of the machine.
    pub keys: Option<Arc<FileKeys>>,
    pub region: Option<String>,
}

/// The profile that is meant, and its name; an empty one if nobody named it and there is none. An error is one sentence.
pub fn profile(options: &RemoteOptions, env: &Env) -> Result<(String, Profile), String> {
    let named = options.profile.clone().or_else(|| env.get("AWS_PROFILE"));
    let name = named.clone().unwrap_or_else(|| "default".into());
    match (ProfileFiles::of_env(env).read(&name)?, named) {
        (Some(profile), _) => Ok((name, profile)),
        (None, None) => Ok((name, Profile::default())),
        (None, Some(name)) => Err(format!(
            "there is no profile {name} in the AWS files; `aws configure list-profiles` shows those that are"
        )),
    }
}

/// Chooses. An error is one sentence.
pub fn choose(options: &RemoteOptions, env: &Env, clock: Arc<dyn Clock>) -> Result<Chosen, String> {
    let (name, profile) = profile(options, env)?;
    let files = ProfileFiles::of_env(env);
    let has = |names: &[&str]| names.iter().all(|name| env.get(name).is_some());
    let env_has_keys = has(&["AWS_ACCESS_KEY_ID"]) || has(&["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"]);
    let Profile { keys, elsewhere, region, endpoint: _ } = profile;
    let keys = match (keys, elsewhere) {
        _ if env_has_keys && options.profile.is_none() => None,
        (Some(keys), _) => Some(Arc::new(FileKeys::new(files, name, keys, clock))),
        (None, Some(word)) => {
            return Err(format!(
                "the profile {name} gets its keys by {word}, which skylog does not follow; put keys into the environment \
                 with `aws configure export-credentials --profile {name} --format env`"
            ));
        }
        (None, None) if options.profile.is_some() => {
            return Err(format!("the profile {name} has no keys; `aws configure --profile {name}` puts them there"));
        }
        (None, None) if !env_has_keys && env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off != "false") => {
            let others =
                ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE"];
            match others.iter().any(|name| env.get(name).is_some()) {
                true => None,
                false => return Err(NO_KEYS.into()),
            }
        }
        (None, None) => None,
    };
    Ok(Chosen { keys, region })
}

/// The keys of a profile, as its file has them now.
pub struct FileKeys {
    files: ProfileFiles,
    name: String,
    clock: Arc<dyn Clock>,
    /// When they were read last, and what was there.
    read: Mutex<(Duration, Arc<AwsCredential>)>,
}

impl fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys of the profile {}", self.name)
    }
}

impl FileKeys {
    fn new(files: ProfileFiles, name: String, keys: Keys, clock: Arc<dyn Clock>) -> FileKeys {
        let read = Mutex::new((clock.elapsed(), credential(keys)));
        FileKeys { files, name, clock, read }
    }

    /// The keys; those from before if the file cannot be read or has none any more.
    fn now(&self) -> Arc<AwsCredential> {
        let mut read = self.read.lock();
        if self.clock.elapsed() >= read.0 + FRESH {
            let found = self.files.read(&self.name).ok().flatten().and_then(|profile| profile.keys);
            *read = (self.clock.elapsed(), found.map_or_else(|| read.1.clone(), credential));
        }
        read.1.clone()
    }
}

fn credential(keys: Keys) -> Arc<AwsCredential> {
    Arc::new(AwsCredential { key_id: keys.id, secret_key: keys.secret, token: keys.token })
}

impl CredentialProvider for FileKeys {
    type Credential = AwsCredential;

    fn get_credential<'a, 'f>(&'a self) -> BoxFuture<'f, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async { Ok(self.now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SimClock;
    use std::fs;

    fn file(text: &str) -> (tempfile::TempDir, Env) {
        let root = tempfile::tempdir().expect("a folder for the test");
        let path = root.path().join("credentials");
        fs::write(&path, text).expect("written");
        let words = [("AWS_SHARED_CREDENTIALS_FILE", path.to_str().expect("plain"))];
        let env = Env::new(words.map(|(name, value)| (name.to_owned(), value.to_owned())));
        (root, env)
    }

    #[test]
    fn keys_of_a_file_are_read_again_and_outlive_the_file() {
        let text = |id: &str| format!("[default]\naws_access_key_id={id}\naws_secret_access_key=s\n");
        let (root, env) = file(&text("first"));
        let clock = Arc::new(SimClock::default());
        let chosen = choose(&RemoteOptions::default(), &env, clock.clone()).expect("chosen");
        let keys = chosen.keys.expect("there");
        fs::write(root.path().join("credentials"), text("second")).expect("written");
        assert_eq!(keys.now().key_id, "first");
        clock.advance(FRESH);
        assert_eq!(keys.now().key_id, "second");
        fs::remove_file(root.path().join("credentials")).expect("removed");
        clock.advance(FRESH);
        assert_eq!(keys.now().key_id, "second");
        assert!(!format!("{keys:?}").contains("second"), "no key shows");
    }

    #[test]
    fn without_keys_a_machine_that_is_none_of_a_cloud_is_not_asked() {
        let choose_in = |words: &[&str]| {
            let words = words.iter().map(|name| ((*name).to_owned(), "true".to_owned()));
            choose(&RemoteOptions::default(), &Env::new(words), Arc::new(SimClock::default()))
        };
        assert_eq!(choose_in(&["AWS_EC2_METADATA_DISABLED"]).err().as_deref(), Some(NO_KEYS));
        assert!(choose_in(&["AWS_EC2_METADATA_DISABLED", "AWS_SKIP_SIGNATURE"]).is_ok());
        assert!(choose_in(&["AWS_EC2_METADATA_DISABLED", "AWS_ACCESS_KEY_ID"]).is_ok());
        assert!(choose_in(&[]).is_ok());
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_refused_only_when_its_keys_are_needed() {
        let (_root, env) = file("[role]\nrole_arn = arn:x\n[bare]\nregion = r\n");
        let clock = || Arc::new(SimClock::default());
        let choose_named = |profile: &str, env: &Env| {
            let options = RemoteOptions { profile: Some(profile.into()), ..RemoteOptions::default() };
            choose(&options, env, clock()).err().expect("refused")
        };
        assert!(choose_named("role", &env).contains("by role_arn, which skylog does not follow"));
        assert!(choose_named("bare", &env).contains("the profile bare has no keys"));
        assert!(choose_named("other", &env).contains("there is no profile other"));
        assert!(choose(&RemoteOptions::default(), &env, clock()).expect("no default profile").keys.is_none());

        let with_keys = [("AWS_PROFILE", "role"), ("AWS_ACCESS_KEY_ID", "k")];
        let with_keys = with_keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = Env::new(with_keys.into_iter().chain([(
            "AWS_SHARED_CREDENTIALS_FILE".to_owned(),
            env.get("AWS_SHARED_CREDENTIALS_FILE").expect("there"),
        )]));
        assert!(choose(&RemoteOptions::default(), &env, clock()).expect("the environment has keys").keys.is_none());
    }
}
