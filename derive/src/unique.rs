//! `#[job(unique(…))]`.

use proc_macro2::{Span, TokenStream as Tokens};
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Result, Token,
    ext::IdentExt as _,
    meta::ParseNestedMeta,
    parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
    spanned::Spanned as _,
};

use crate::duration;

/// The most that core takes.
const MOST_FIELDS: usize = 16;
const LONGEST: usize = 255;

/// A field, by its name or by a JSON pointer.
enum Named {
    Field(Ident),
    Pointer(LitStr),
}

impl Parse for Named {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(LitStr) {
            return Ok(Self::Pointer(input.parse()?));
        }
        Ok(Self::Field(input.call(Ident::parse_any)?))
    }
}

/// The rule as it is written.
#[derive(Default)]
pub(crate) struct Rule {
    fields: Option<Vec<Named>>,
    within: Option<Tokens>,
    on_conflict: Option<Tokens>,
}

/// Reads `unique`, or `unique(…)`.
pub(crate) fn read(meta: &ParseNestedMeta<'_>) -> Result<Rule> {
    let mut rule = Rule::default();
    // The whole payload, then.
    if !meta.input.peek(syn::token::Paren) {
        return Ok(rule);
    }
    meta.parse_nested_meta(|meta| {
        let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let said = match key.as_str() {
            "fields" => rule.fields.is_some(),
            "within" => rule.within.is_some(),
            "on_conflict" => rule.on_conflict.is_some(),
            _ => return Err(meta.error("unknown key: use fields(…), within or on_conflict")),
        };
        if said {
            return Err(meta.error(format!("{key} is said twice")));
        }
        match key.as_str() {
            "fields" => rule.fields = Some(fields(&meta)?),
            "within" => {
                let literal: LitStr = meta.value()?.parse()?;
                if humantime::parse_duration(&literal.value()).is_ok_and(|period| period.is_zero()) {
                    return Err(Error::new(literal.span(), "within no time, no job has another beside it"));
                }
                rule.within = Some(duration(&literal)?);
            }
            _ => rule.on_conflict = Some(on_conflict(&meta.value()?.parse()?)?),
        }
        Ok(())
    })?;
    Ok(rule)
}

fn fields(meta: &ParseNestedMeta<'_>) -> Result<Vec<Named>> {
    let content;
    parenthesized!(content in meta.input);
    let fields = Punctuated::<Named, Token![,]>::parse_terminated(&content)?;
    if !(1..=MOST_FIELDS).contains(&fields.len()) {
        return Err(Error::new(meta.path.span(), format!("name 1 to {MOST_FIELDS} fields")));
    }
    Ok(fields.into_iter().collect())
}

fn on_conflict(literal: &LitStr) -> Result<Tokens> {
    Ok(match literal.value().as_str() {
        "existing" => quote!(::windlass::OnConflict::Existing),
        "replace" => quote!(::windlass::OnConflict::Replace),
        "replace_all" => quote!(::windlass::OnConflict::ReplaceAll),
        "refuse" => quote!(::windlass::OnConflict::Refuse),
        _ => {
            let rule = "use \"existing\", \"replace\", \"replace_all\" (its time as well) or \"refuse\"";
            return Err(Error::new(literal.span(), rule));
        }
    })
}

impl Rule {
    /// The method of the trait.
    pub(crate) fn method(&self, input: &DeriveInput) -> Result<Tokens> {
        let names = Names::of(input);
        let mut pointers: Vec<String> = Vec::new();
        for field in self.fields.iter().flatten() {
            let (pointer, span) = names.pointer(field)?;
            if pointers.contains(&pointer) {
                return Err(Error::new(span, "this field is named twice"));
            }
            pointers.push(pointer);
        }
        if pointers.is_empty() {
            pointers.push(String::new());
        }
        let within = self.within.as_ref().map(|period| quote!(.within(#period)));
        let on_conflict = self.on_conflict.as_ref().map(|rule| quote!(.on_conflict(#rule)));
        Ok(quote! {
            fn unique(
                &self,
            ) -> ::core::result::Result<::core::option::Option<::windlass::Unique>, ::windlass::InvalidUnique> {
                let unique = ::windlass::Unique::by_fields([#(#pointers),*])?;
                ::core::result::Result::Ok(::core::option::Option::Some(unique #within #on_conflict))
            }
        })
    }
}

/// What the fields of a payload are called in JSON, as far as that can be told.
struct Names<'a> {
    /// `None`: there are none, or serde has a say.
    fields: Option<Vec<(&'a Ident, bool)>>,
    /// Whether there may be others, or they may have other names.
    open: bool,
}

impl<'a> Names<'a> {
    fn of(input: &'a DeriveInput) -> Self {
        let Data::Struct(data) = &input.data else { return Self { fields: None, open: true } };
        let Fields::Named(named) = &data.fields else { return Self { fields: None, open: true } };
        let whole = ["rename_all", "transparent", "into", "tag"].iter().any(|key| serde(&input.attrs, key));
        let other = |field: &Field| {
            ["rename", "flatten", "skip", "skip_serializing"].iter().any(|key| serde(&field.attrs, key))
        };
        let fields: Vec<_> = named
            .named
            .iter()
            .filter_map(|field| Some((field.ident.as_ref()?, whole || other(field))))
            .collect();
        let open = fields.iter().any(|(_, other)| *other);
        Self { fields: Some(fields), open: open || whole }
    }

    fn pointer(&self, named: &Named) -> Result<(String, Span)> {
        match named {
            Named::Field(ident) => {
                let span = ident.span();
                let Some(fields) = &self.fields else {
                    let rule = "only a struct has fields with names; name what it has in JSON by a pointer: \"/customer\"";
                    return Err(Error::new(span, rule));
                };
                let Some((_, other)) = fields.iter().find(|(field, _)| *field == ident) else {
                    return Err(Error::new(span, format!("no such field; there are {}", self.known())));
                };
                if *other {
                    let rule = "serde gives this field another name or place; name that by a JSON pointer: \"/customer\"";
                    return Err(Error::new(span, rule));
                }
                Ok((format!("/{}", ident.unraw()), span))
            }
            Named::Pointer(literal) => {
                let (pointer, span) = (literal.value(), literal.span());
                if pointer.len() > LONGEST || !pointer.starts_with('/') {
                    let rule =
                        format!("write a JSON pointer of up to {LONGEST} bytes, such as \"/customer\"");
                    return Err(Error::new(span, rule));
                }
                let first = pointer[1..].split('/').next().unwrap_or_default();
                let known =
                    |fields: &Vec<(&Ident, bool)>| fields.iter().any(|(field, _)| field.unraw() == first);
                if !self.open && !self.fields.as_ref().is_some_and(known) {
                    return Err(Error::new(span, format!("no such field; there are {}", self.known())));
                }
                Ok((pointer, span))
            }
        }
    }

    fn known(&self) -> String {
        let names = self.fields.iter().flatten().map(|(field, _)| field.unraw().to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        if names.is_empty() { "none".into() } else { names }
    }
}

/// Whether serde is told this.
fn serde(attributes: &[Attribute], key: &str) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).any(|attribute| {
        let mut said = false;
        // What serde cannot read either is its own affair.
        let _ = attribute.parse_nested_meta(|meta| {
            said |= meta.path.is_ident(key);
            if meta.input.peek(Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                parenthesized!(content in meta.input);
                content.parse::<Tokens>()?;
            }
            Ok(())
        });
        said
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use crate::expand;

    fn refused(rule: &str, body: &str) -> String {
        let text = format!("#[job(kind = \"k\", {rule})] {body}");
        expand(&syn::parse_str(&text).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let order = "struct Order { customer: u32, region: String }";
        for (rule, body, said) in [
            ("unique(fields(costumer))", order, "no such field; there are customer, region"),
            ("unique(fields(\"/costumer/id\"))", order, "no such field"),
            ("unique(fields(customer, \"/customer\"))", order, "twice"),
            ("unique(fields())", order, "1 to 16"),
            ("unique(fields(\"customer\"))", order, "JSON pointer"),
            ("unique(fields(customer), fields(region))", order, "fields is said twice"),
            ("unique(within = \"0s\")", order, "no time"),
            ("unique(within = \"soon\")", order, "write a duration"),
            ("unique(on_conflict = \"drop\")", order, "\"refuse\""),
            ("unique(by = \"x\")", order, "unknown key"),
            ("unique, unique", order, "unique is said twice"),
            ("unique(fields(customer))", "enum Order { A { customer: u32 } }", "only a struct"),
            ("unique(fields(x))", "struct Order(u32);", "only a struct"),
            ("unique(fields(x))", "struct Order {}", "there are none"),
            (
                "unique(fields(customer))",
                "#[serde(rename_all = \"camelCase\")] struct O { customer: u32 }",
                "serde",
            ),
            (
                "unique(fields(customer))",
                "struct O { #[serde(default, rename = \"c\")] customer: u32 }",
                "serde",
            ),
        ] {
            let error = refused(rule, body);
            assert!(error.contains(said), "{rule} {body}: {error}");
        }
    }
}
