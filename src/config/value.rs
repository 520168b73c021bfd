//! What an option may be, and what it is: values of a few kinds, as TOML has
//! them.

use std::fmt;

use toml::de::DeValue;

/// What an option may be.
#[derive(Clone, Copy)]
pub enum Shape {
    Flag,
    Number {
        min: u64,
        max: u64,
    },
    /// One of these words.
    Choice(fn() -> Vec<&'static str>),
    /// A text, and what it says.
    Text(&'static str),
    /// An array of texts, and what they say.
    Texts(&'static str),
}

/// A value as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(u64),
    Text(String),
    Texts(Vec<String>),
}

impl Shape {
    /// The value that a flag or a variable gives as `text`: as in the file,
    /// but words and other texts without quotes.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let refusal = || self.refusal(&format!("{text:?}"));
        match self {
            Shape::Choice(_) | Shape::Text(_) => {
                let value = Value::Text(text.to_owned());
                self.allows(&value).then_some(value).ok_or_else(refusal)
            }
            Shape::Flag | Shape::Number { .. } | Shape::Texts(_) => {
                let value = DeValue::parse(text).map_err(|_| refusal())?;
                self.read(value.get_ref())
            }
        }
    }

    /// The value that stands in a file, if it is of this kind.
    pub(crate) fn read(&self, value: &DeValue<'_>) -> Result<Value, String> {
        let read = match value {
            DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(Value::Number),
            DeValue::String(text) => Some(Value::Text(text.as_ref().to_owned())),
            DeValue::Array(array) => {
                let texts = array.iter().map(|element| element.get_ref().as_str());
                let texts: Option<Vec<_>> = texts.map(|text| text.map(str::to_owned)).collect();
                texts.map(Value::Texts)
            }
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
        };
        read.filter(|value| self.allows(value))
            .ok_or_else(|| self.refusal(&found(value)))
    }

    /// Whether `value` is of this kind, and within its bounds.
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Shape::Flag, Value::Flag(_))
            | (Shape::Text(_), Value::Text(_))
            | (Shape::Texts(_), Value::Texts(_)) => true,
            (Shape::Number { min, max }, Value::Number(number)) => (min..=max).contains(&number),
            (Shape::Choice(words), Value::Text(word)) => words().contains(&word.as_str()),
            _ => false,
        }
    }

    /// The sentence about a value that is not allowed.
    pub(super) fn refusal(&self, found: &str) -> String {
        format!("must be {self}, not {found}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Flag => f.write_str("true or false"),
            Shape::Number { min, max } => {
                write!(
                    f,
                    "a whole number from {} to {}",
                    grouped(*min),
                    grouped(*max)
                )
            }
            Shape::Choice(words) => {
                let words: Vec<_> = words().iter().map(|word| format!("{word:?}")).collect();
                let (last, first) = words.split_last().ok_or(fmt::Error)?;
                write!(f, "{} or {last}", first.join(", "))
            }
            Shape::Text(what) | Shape::Texts(what) => f.write_str(what),
        }
    }
}

/// A value that is not what it should be, short enough for an error.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(array) if array.iter().all(|element| element.get_ref().is_str()) => {
            "an array of texts".to_owned()
        }
        DeValue::Array(_) => "an array of other things".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// As TOML writes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // JSON's escapes are TOML's, but for DEL, which JSON leaves bare.
        let quote = |text: &String| {
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            quoted.replace('\u{7f}', "\\u007F")
        };
        match self {
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Number(number) => f.write_str(&grouped(*number)),
            Value::Text(text) => f.write_str(&quote(text)),
            Value::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(quote).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

/// 1048576 as 1_048_576.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

impl Value {
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Flag(flag) => (*flag).into(),
            Value::Number(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Texts(texts) => texts.as_slice().into(),
        }
    }
}
