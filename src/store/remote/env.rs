//! The environment as it was when a store was opened. Tests bring one of their own.

use nix::unistd::{User, geteuid};

/// Names and values; none is empty.
pub struct Env(Vec<(String, String)>);

impl Env {
    /// That of this process, as far as it is text. What the system starts by itself, as a line of fstab, has no home: that of
    /// its user is meant.
    pub fn of_process() -> Env {
        let text =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut env = Env::new(text);
        if env.get("HOME").is_none() {
            let user = User::from_uid(geteuid()).ok().flatten();
            env.0
                .extend(user.and_then(|user| Some(("HOME".to_owned(), user.dir.into_os_string().into_string().ok()?))));
        }
        env
    }

    pub fn new(words: impl IntoIterator<Item = (String, String)>) -> Env {
        Env(words.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    /// What begins with `prefix`, as pairs of a name in small letters, the way the clients of stores read them, and a value.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        let found = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        found.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }
}
