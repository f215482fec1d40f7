//! Looks settings up in the layers that can hold them, and collects what is wrong.
//!
//! A stage asks for each of its keys once, with a default and a syntax. What was asked for is what exists: keys and
//! `JACKFIELD_…` variables that nobody asked for are unknown. So a setting is written down in one place.
//!
//! A wrong value counts as not given, so that reading goes on to the next mistake; whoever calls [`Reader::finish`]
//! then refuses the whole.

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::path::Path;

use toml::{Table, Value};

use super::drop_in;
use super::environment::Environment;
use super::mistakes::{Mistake, in_one_line};
use super::values::Syntax;

/// The layers of settings, and the mistakes found in them so far.
#[derive(Default)]
pub(super) struct Reader {
    flags: BTreeMap<String, String>,
    environment: Environment,
    table: Table,
    /// What stands before a key of the table in a mistake: `jackfield.toml: `.
    prefix: String,
    /// Every key that was asked for, except those of `file_only`.
    asked: Vec<String>,
    /// The keys that no variable and no flag can set.
    file_only: Vec<String>,
    mistakes: Vec<Mistake>,
}

/// A value that someone gave, as opposed to a default.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    /// Where, as the user wrote it.
    pub(super) place: String,
    /// The value as a mistake shows it, in one line.
    pub(super) shown: String,
    /// The value.
    pub(super) value: T,
}

/// Layers.
impl Reader {
    /// Reads a table of a file. `prefix` stands before its keys in a mistake.
    pub(super) fn of_table(prefix: String, table: Table) -> Self {
        Self {
            prefix,
            table,
            ..Self::default()
        }
    }

    /// Reads TOML text. `prefix` stands before its keys in a mistake.
    pub(super) fn of_text(prefix: String, text: &str) -> Self {
        match text.parse() {
            Ok(table) => Self::of_table(prefix, table),
            Err(error) => Self::of_mistake(Mistake::not_toml(&prefix, text, &error)),
        }
    }

    /// Reads the file at `path`, which must be there.
    pub(super) fn of_file(path: &Path) -> Self {
        let name = in_one_line(&path.to_string_lossy());
        match fs::read_to_string(path) {
            Ok(text) => Self::of_text(format!("{name}: "), &text),
            Err(error) => Self::of_mistake(Mistake::unreadable(name, &error)),
        }
    }

    fn of_mistake(mistake: Mistake) -> Self {
        Self {
            mistakes: vec![mistake],
            ..Self::default()
        }
    }

    /// Puts the environment, and the command line's settings above it, over the file.
    pub(super) fn under(self, environment: Environment, flags: Vec<(String, String)>) -> Self {
        Self {
            flags: flags.into_iter().collect(),
            environment,
            ..self
        }
    }

    /// Takes everything but the table `kept` out of the file.
    pub(super) fn take_rest(&mut self, kept: &str) -> Table {
        let all = mem::take(&mut self.table).into_iter();
        let (ours, rest) = all.partition(|(name, _)| name == kept);
        self.table = ours;
        rest
    }
}

/// Values.
impl Reader {
    /// The value of `key`, or `default`.
    pub(super) fn get<T>(&mut self, key: &str, default: T, syntax: &Syntax<T>) -> T {
        self.given(key, syntax).map_or(default, |given| given.value)
    }

    /// The value of `key`, if someone gave one.
    pub(super) fn given<T>(&mut self, key: &str, syntax: &Syntax<T>) -> Option<Given<T>> {
        let found = self.find(key, syntax.mask.is_some())?;
        self.one(found, syntax)
    }

    /// The values of `key`: an array in the file, separated by commas elsewhere.
    pub(super) fn given_list<T>(&mut self, key: &str, syntax: &Syntax<T>) -> Option<Given<Vec<T>>> {
        let found = self.find(key, syntax.mask.is_some())?;
        self.list(found, syntax)
    }

    /// The value of a variable that is not the whole of a setting.
    pub(super) fn variable<T>(&mut self, name: &str, syntax: &Syntax<T>) -> Option<Given<T>> {
        let found = self.find_variable(name)?;
        self.one(found, syntax)
    }

    /// The values of a variable, separated by commas.
    pub(super) fn variable_list<T>(
        &mut self,
        name: &str,
        syntax: &Syntax<T>,
    ) -> Option<Given<Vec<T>>> {
        let found = self.find_variable(name)?;
        self.list(found, syntax)
    }

    /// The names and texts of a table of the file.
    pub(super) fn given_pairs(&mut self, key: &str) -> Option<Given<Vec<(String, String)>>> {
        self.file_only.push(key.to_owned());
        let found = self.find_in_file(key)?;
        let pair = |(name, value): (&String, &Value)| {
            let text = text_of(value).filter(|_| !name.is_empty())?;
            Some((name.clone(), text))
        };
        let table = found.value.as_table();
        let pairs = table.and_then(|table| table.iter().map(pair).collect());
        let allowed =
            "a table of header names and texts such as { \"Call-Direction\" = \"inbound\" }";
        self.accept(found, pairs, allowed)
    }

    /// One reader for each table of the array `[[key]]`, if the file has that array.
    pub(super) fn given_tables(&mut self, key: &str) -> Option<Vec<Self>> {
        self.file_only.push(key.to_owned());
        let found = self.find_in_file(key)?;
        let items = found.value.as_array();
        let tables: Option<Vec<Table>> =
            items.and_then(|items| items.iter().map(|item| item.as_table().cloned()).collect());
        let tables = self.accept(found, tables, &format!("[[{key}]] tables"))?;
        let readers = (1..).zip(tables.value).map(|(number, table)| {
            let prefix = format!("{}[[{key}]] {number}: ", self.prefix);
            Self::of_table(prefix, table)
        });
        Some(readers.collect())
    }

    /// Whether something above the Go service's variables gives `key`: a flag or the key's own variable.
    pub(super) fn is_above_drop_in(&self, key: &str) -> bool {
        self.flags.contains_key(key) || self.environment.sets(key)
    }

    /// Whether the file has `key`, right or wrong.
    pub(super) fn is_in_file(&self, key: &str) -> bool {
        self.find_in_file(key).is_some()
    }

    /// Whether a variable is set.
    pub(super) fn is_set(&self, variable: &str) -> bool {
        self.environment.is_set(variable)
    }

    fn find(&mut self, key: &str, secret: bool) -> Option<Given<Value>> {
        self.asked.push(key.to_owned());
        if let Some(text) = self.flags.get(key) {
            return Some(Given::text(format!("flag {key}"), text.clone()));
        }
        if self.environment.sets(key) {
            let own = self.environment.own_text(key, secret);
            let (name, text) = self.collect(own)?;
            return Some(Given::text(name, text));
        }
        match drop_in::variable_of(key).filter(|name| self.is_set(name)) {
            Some(name) => self.find_variable(name),
            None => self.find_in_file(key),
        }
    }

    fn find_variable(&mut self, name: &str) -> Option<Given<Value>> {
        let text = self.environment.text(name);
        let text = self.collect(text)?;
        Some(Given::text(name.to_owned(), text))
    }

    fn find_in_file(&self, key: &str) -> Option<Given<Value>> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        let value = parts.try_fold(first, |value, part| value.as_table()?.get(part))?;
        let place = format!("{}{key}", self.prefix);
        Some(Given::new(place, value.clone()))
    }

    fn one<T>(&mut self, found: Given<Value>, syntax: &Syntax<T>) -> Option<Given<T>> {
        let text = text_of(&found.value);
        let shown = match (syntax.mask, &text) {
            (None, _) => found.shown.clone(),
            (Some(mask), Some(text)) => mask(text),
            (Some(_), None) => "***".to_owned(),
        };
        let value = text.as_deref().and_then(syntax.parse);
        self.accept(Given { shown, ..found }, value, syntax.allowed)
    }

    fn list<T>(&mut self, found: Given<Value>, syntax: &Syntax<T>) -> Option<Given<Vec<T>>> {
        let items = match &found.value {
            Value::Array(items) => items.clone(),
            Value::String(text) => {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|item| !item.is_empty());
                items.map(|item| Value::String(item.to_owned())).collect()
            }
            other => vec![other.clone()],
        };
        let number = items.len();
        let items = items.into_iter().filter_map(|item| {
            let item = Given::new(found.place.clone(), item);
            self.one(item, syntax).map(|given| given.value)
        });
        let values: Vec<T> = items.collect();
        (values.len() == number).then(|| found.with(values))
    }
}

/// Mistakes.
impl Reader {
    /// Notes that a value, though well written, is not allowed beside the others.
    pub(super) fn refuse<T>(&mut self, given: &Given<T>, allowed: impl Into<String>) {
        self.mistakes.push(Mistake::Value {
            place: given.place.clone(),
            value: given.shown.clone(),
            allowed: allowed.into(),
        });
    }

    /// Notes that `key` must be given.
    pub(super) fn missing(&mut self, key: &str, allowed: &str) {
        self.mistakes.push(Mistake::Missing {
            place: format!("{}{key}", self.prefix),
            allowed: allowed.to_owned(),
        });
    }

    /// Adds the mistakes of a reader of one of the file's tables.
    pub(super) fn absorb(&mut self, inner: Self) {
        self.mistakes.extend(inner.finish());
    }

    /// Every mistake, after the last key was asked for.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        let table = mem::take(&mut self.table);
        self.refuse_unknown_keys("", &table);
        for key in self.flags.keys().filter(|key| !self.asked.contains(key)) {
            let place = format!("flag {}", in_one_line(key));
            let unknown = Mistake::unknown("key", &place, key, &self.asked);
            self.mistakes.push(unknown);
        }
        self.mistakes.extend(self.environment.unknown(&self.asked));
        self.mistakes
    }

    fn refuse_unknown_keys(&mut self, path: &str, table: &Table) {
        for (name, value) in table {
            let key = format!("{path}{}", key_part(name));
            let place = format!("{}{key}", self.prefix);
            if self.asked.contains(&key) || self.file_only.contains(&key) {
                continue;
            }
            let inside = format!("{key}.");
            if !self.asked.iter().any(|asked| asked.starts_with(&inside)) {
                let known = [self.asked.as_slice(), &self.file_only].concat();
                let unknown = Mistake::unknown("key", &place, &key, &known);
                self.mistakes.push(unknown);
            } else if let Some(table) = value.as_table() {
                self.refuse_unknown_keys(&inside, table);
            } else {
                // What stands here may be a secret: `redis = "redis://:password@host"`.
                self.mistakes.push(Mistake::Value {
                    place,
                    value: "***".to_owned(),
                    allowed: "a table".to_owned(),
                });
            }
        }
    }

    /// The value that was found, or what is allowed in its place.
    fn accept<T>(
        &mut self,
        found: Given<Value>,
        value: Option<T>,
        allowed: &str,
    ) -> Option<Given<T>> {
        if value.is_none() {
            self.refuse(&found, allowed);
        }
        value.map(|value| found.with(value))
    }

    fn collect<T>(&mut self, result: Result<Option<T>, Mistake>) -> Option<T> {
        result.unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            None
        })
    }

    /// The keys that were asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().chain(&self.file_only).map(String::as_str)
    }
}

impl<T> Given<T> {
    /// Another value in its place.
    pub(super) fn with<U>(self, value: U) -> Given<U> {
        Given {
            place: self.place,
            shown: self.shown,
            value,
        }
    }
}

impl Given<Value> {
    fn new(place: String, value: Value) -> Self {
        let shown = match &value {
            Value::String(text) => format!("{text:?}"),
            other => other.to_string().replace('\n', " "),
        };
        Self {
            place,
            shown,
            value,
        }
    }

    fn text(place: String, text: String) -> Self {
        Self::new(place, Value::String(text))
    }
}

/// A string, or a whole number as text: what a variable could have said as well.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// One part of a dotted key, quoted as it must be in TOML if it is not bare.
pub(super) fn key_part(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}
