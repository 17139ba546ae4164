//! Options that say how to talk to a remote store. Each is defined once, as a word after `-o` (`mount_words`); here the same
//! table becomes flags of the commands (`--upload-limit` of the word `upload_limit=`). None carries a secret.

use super::failure::Failure;
use super::mount_words::{Read, WORDS, Word};
use super::size;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde::{Deserialize, Serialize};
use skylog::store::{Addressing, RemoteOptions};
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;
use url::Url;

/// What the user said of a remote store: words without their values, and these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteWords(BTreeMap<String, String>);

/// A request may be waited for at most this long.
const TIMEOUT_SECONDS_MAX: u64 = 3600;

fn table() -> impl Iterator<Item = &'static Word> {
    WORDS.iter().filter(|word| matches!(word.read, Read::Remote(_)))
}

fn flag(word: &str) -> String {
    format!("--{}", word.replace('_', "-"))
}

impl RemoteWords {
    /// One more; the last of a name counts. The two forms of addresses are one thing.
    pub fn set(&mut self, name: &str, value: &str) {
        for other in ["path_style", "virtual_hosted"].iter().filter(|form| **form != name && name_is_form(name)) {
            self.0.remove(*other);
        }
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// All of another; these win.
    pub fn extend(&mut self, winning: &RemoteWords) {
        winning.0.iter().for_each(|(name, value)| self.set(name, value));
    }

    /// The first of these that the other does not have so.
    pub fn first_not_in(&self, other: &RemoteWords) -> Option<&str> {
        self.0.iter().find(|(name, value)| other.0.get(*name) != Some(value)).map(|(name, _)| name.as_str())
    }

    /// The flag of the first, if there is one.
    pub fn first(&self) -> Option<String> {
        self.0.keys().next().map(|name| flag(name))
    }

    /// What they come to. An error is of the command line.
    pub fn options(&self) -> Result<RemoteOptions, Failure> {
        let mut options = RemoteOptions::default();
        for word in table() {
            if let (Some(value), Read::Remote(set)) = (self.0.get(word.name()), &word.read) {
                set(&mut options, value).map_err(|why| Failure::usage(format_args!("{}: {why}", flag(word.name()))))?;
            }
        }
        Ok(options)
    }
}

fn name_is_form(name: &str) -> bool {
    matches!(name, "path_style" | "virtual_hosted")
}

impl FromArgMatches for RemoteWords {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RemoteWords, clap::Error> {
        let mut words = RemoteWords::default();
        words.update_from_arg_matches(matches)?;
        Ok(words)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for word in table() {
            match word.value() {
                None if matches.get_flag(word.name()) => self.set(word.name(), ""),
                None => {}
                Some(_) => {
                    if let Some(value) = matches.get_one::<String>(word.name()) {
                        self.set(word.name(), value);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Args for RemoteWords {
    fn augment_args(command: Command) -> Command {
        let arg = |word: &'static Word| {
            let arg = Arg::new(word.name()).long(word.name().replace('_', "-")).help_heading("Remote stores");
            let arg = arg.help(format!("{}.", word.means));
            match word.value() {
                Some(value) => arg.value_name(value),
                None => arg.action(ArgAction::SetTrue),
            }
        };
        command.args(table().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        RemoteWords::augment_args(command)
    }
}

/// A base URL of a service. Names and passwords are no part of it: the kernel, the registry and the log show it.
pub fn endpoint(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| format!("{value:?} is no http:// or https:// URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it takes no user and password; keys come from the environment or a profile".into());
    }
    options.endpoint = Some(value.trim_end_matches('/').to_owned());
    Ok(())
}

/// The region of a bucket.
pub fn region(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.region = Some(named(value)?);
    Ok(())
}

/// A section of the AWS files.
pub fn profile(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.profile = Some(named(value)?);
    Ok(())
}

fn named(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("give a name".into()) } else { Ok(value.to_owned()) }
}

/// The bucket is in the path of addresses.
pub fn path_style(options: &mut RemoteOptions, _: &str) -> Result<(), String> {
    options.addressing = Some(Addressing::PathStyle);
    Ok(())
}

/// The bucket is in the host of addresses.
pub fn virtual_hosted(options: &mut RemoteOptions, _: &str) -> Result<(), String> {
    options.addressing = Some(Addressing::VirtualHosted);
    Ok(())
}

/// Requests at the same time that send.
pub fn uploads(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.uploads = requests(value)?;
    Ok(())
}

/// All other requests at the same time.
pub fn downloads(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.downloads = requests(value)?;
    Ok(())
}

fn requests(value: &str) -> Result<NonZeroUsize, String> {
    let number = value.parse().ok().filter(|number: &NonZeroUsize| number.get() <= 1000);
    number.ok_or_else(|| format!("{value:?} is no number of requests from 1 to 1000"))
}

/// Bytes per second that are sent.
pub fn upload_limit(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.upload_bytes_per_second = Some(rate(value)?);
    Ok(())
}

/// Bytes per second that are received.
pub fn download_limit(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    options.download_bytes_per_second = Some(rate(value)?);
    Ok(())
}

fn rate(value: &str) -> Result<NonZeroU64, String> {
    let bytes = size::parse(value.strip_suffix("/s").unwrap_or(value))?;
    NonZeroU64::new(bytes).ok_or_else(|| "with nothing per second nothing would ever arrive".into())
}

/// How long a request may stand still.
pub fn request_timeout(options: &mut RemoteOptions, value: &str) -> Result<(), String> {
    let seconds = value.parse().ok().filter(|seconds| (1..=TIMEOUT_SECONDS_MAX).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| format!("{value:?} is no number of seconds from 1 to {TIMEOUT_SECONDS_MAX}"))?;
    options.request_timeout = Duration::from_secs(seconds);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::mount_options::MountOptions;

    fn after_o(list: &str) -> Result<RemoteOptions, String> {
        let options = MountOptions::parse(&[list.to_owned()]).expect("words that there are");
        options.remote.options().map_err(|failure| failure.sentence().to_owned())
    }

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        words: RemoteWords,
    }

    fn flags(line: &str) -> RemoteOptions {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        <Flags as clap::Parser>::try_parse_from(words).expect("flags that there are").words.options().expect("sensible")
    }

    #[test]
    fn a_word_and_its_flag_say_the_same() {
        let list = "endpoint=http://127.0.0.1:9000/,region=eu-1,path_style,profile=work,uploads=3,downloads=5,\
                    upload_limit=2MiB/s,download_limit=1000,request_timeout=7";
        let line = "--endpoint http://127.0.0.1:9000 --region eu-1 --path-style --profile work --uploads 3 --downloads 5 \
                    --upload-limit 2MiB --download-limit 1000/s --request-timeout 7";
        let options = after_o(list).expect("sensible");
        assert_eq!(options, flags(line));
        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((options.uploads.get(), options.downloads.get()), (3, 5));
        assert_eq!(options.upload_bytes_per_second.map(NonZeroU64::get), Some(2 << 20));
        assert_eq!(options.request_timeout, Duration::from_secs(7));
        assert_eq!(flags(""), RemoteOptions::default());
    }

    #[test]
    fn the_last_form_of_addresses_counts() {
        assert_eq!(after_o("path_style,virtual_hosted").map(|o| o.addressing), Ok(Some(Addressing::VirtualHosted)));
        assert_eq!(after_o("virtual_hosted,path_style").map(|o| o.addressing), Ok(Some(Addressing::PathStyle)));
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_sentence() {
        for (list, words) in [
            ("endpoint=minio:9000", "no http:// or https:// URL"),
            ("endpoint=http://key:secret@minio", "no user and password"),
            ("region=", "--region: give a name"),
            ("uploads=0", "from 1 to 1000"),
            ("upload_limit=0", "--upload-limit: with nothing per second"),
            ("download_limit=fast", "is not a size"),
            ("request_timeout=0", "from 1 to 3600"),
        ] {
            let said = after_o(list).expect_err(list);
            assert!(said.contains(words) && !said.contains("secret@"), "{list}: {said}");
        }
    }
}
