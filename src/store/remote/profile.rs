//! The files in which the AWS tools keep keys: `~/.aws/credentials` and `~/.aws/config`. Only what a store needs is read.

use super::env::Env;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Keys, and what goes with those that end.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// What the files say of one profile.
#[derive(Default)]
pub struct Profile {
    pub keys: Option<Keys>,
    /// The word by which it has its keys from elsewhere.
    pub elsewhere: Option<&'static str>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

/// Where the files are and which profile is meant, by the environment.
pub struct ProfileFiles {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl ProfileFiles {
    /// As the environment has it.
    pub fn of_env(env: &Env) -> ProfileFiles {
        let home = env.get("HOME").map(PathBuf::from);
        let file = |name: &str, usual: &str| {
            let usual = || home.as_ref().map(|home| home.join(".aws").join(usual));
            env.get(name).map(PathBuf::from).or_else(usual)
        };
        ProfileFiles {
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
        }
    }

    /// Reads the profile of that name; `Ok(None)` when neither file has it. An error is one sentence.
    pub fn read(&self, name: &str) -> Result<Option<Profile>, String> {
        let text = |file: &Option<PathBuf>| match file {
            None => Ok(String::new()),
            Some(file) => match fs::read_to_string(file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                read => read.map_err(|e| format!("{} cannot be read: {e}", file.display())),
            },
        };
        Ok(of_texts(name, &text(&self.credentials)?, &text(&self.config)?))
    }
}

/// What the two texts say of a profile. Keys of the credentials file go before those of the other.
fn of_texts(name: &str, credentials: &str, config: &str) -> Option<Profile> {
    let mut words = section(config, |found| {
        // A section without the word is the default one, or none of a profile.
        let named = found.strip_prefix("profile ").map(str::trim);
        named == Some(name) || (name == "default" && found == name)
    });
    if let Some(keys) = section(credentials, |found| found == name) {
        words.get_or_insert_default().extend(keys);
    }
    let mut words = words?;
    let both = words.remove("aws_access_key_id").zip(words.remove("aws_secret_access_key"));
    let token = words.remove("aws_session_token");
    let elsewhere = ["role_arn", "sso_session", "sso_start_url", "credential_process", "login_session"];
    Some(Profile {
        keys: both.map(|(id, secret)| Keys { id, secret, token }),
        elsewhere: elsewhere.into_iter().find(|word| words.contains_key(*word)),
        region: words.remove("region"),
        endpoint: words.remove("endpoint_url"),
    })
}

/// The words of all sections whose heading is meant; the last of the same name counts. Lines that are set in belong to the
/// word above them, which is none of ours.
fn section(text: &str, is_meant: impl Fn(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut within = false;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some((heading, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            within = is_meant(heading.trim());
            if within {
                found.get_or_insert_default();
            }
        } else if let (true, Some((word, value))) = (within, line.split_once('=')) {
            // A comment after a value begins with a space: a key may hold the sign itself.
            let value = value.split(" #").next().and_then(|value| value.split(" ;").next()).unwrap_or_default();
            found.get_or_insert_default().insert(word.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = AK1\naws_secret_access_key=se=cr/et#1\n\n\
                               [ work ]\r\nAWS_ACCESS_KEY_ID = AK2 # old\r\naws_secret_access_key = s2\r\naws_session_token = t2\r\n";
    const CONFIG: &str = "[default]\nregion = eu-1\n[profile work]\nregion=eu-2\ns3 =\n  endpoint_url = http://nested\n\
                          endpoint_url = http://one:9000\n[work]\nregion = wrong\n[profile role]\nrole_arn = arn:x\n";

    fn read(name: &str) -> Profile {
        of_texts(name, CREDENTIALS, CONFIG).expect("there")
    }

    #[test]
    fn a_profile_has_its_keys_from_one_file_and_the_rest_from_the_other() {
        let profile = read("default");
        let keys = profile.keys.expect("there");
        assert_eq!((keys.id, keys.secret, keys.token), ("AK1".into(), "se=cr/et#1".into(), None));
        assert_eq!((profile.region, profile.endpoint), (Some("eu-1".into()), None));
        let profile = read("work");
        let keys = profile.keys.expect("there");
        assert_eq!((keys.id, keys.secret, keys.token), ("AK2".into(), "s2".into(), Some("t2".into())));
        assert_eq!((profile.region.as_deref(), profile.endpoint.as_deref()), (Some("eu-2"), Some("http://one:9000")));
    }

    #[test]
    fn a_profile_that_is_not_there_is_none_and_one_with_a_role_says_so() {
        assert!(of_texts("other", CREDENTIALS, CONFIG).is_none());
        assert!(of_texts("", CREDENTIALS, CONFIG).is_none());
        let role = read("role");
        assert!(role.keys.is_none() && role.elsewhere == Some("role_arn"));
    }

    #[test]
    fn the_files_are_where_the_environment_says_and_need_not_be_there() {
        let root = tempfile::tempdir().expect("a folder for the test");
        let home = root.path().to_str().expect("plain");
        let named = root.path().join("keys").to_str().expect("plain").to_owned();
        std::fs::write(&named, CREDENTIALS).expect("written");
        let env = [("HOME", home), ("AWS_SHARED_CREDENTIALS_FILE", &named)];
        let env = Env::new(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let profile = ProfileFiles::of_env(&env).read("work").expect("readable").expect("there");
        assert_eq!((profile.keys.is_some(), profile.region), (true, None));
        std::fs::create_dir(root.path().join(".aws")).expect("made");
        std::fs::write(root.path().join(".aws/config"), CONFIG).expect("written");
        let profile = ProfileFiles::of_env(&env).read("work").expect("readable").expect("there");
        assert_eq!((profile.keys.is_some(), profile.region.as_deref()), (true, Some("eu-2")));
        assert!(ProfileFiles::of_env(&Env::new([])).read("work").expect("nothing to read").is_none());
    }
}
