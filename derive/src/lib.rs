//! `#[derive(Job)]` for Windlass payload types.

mod unique;

use proc_macro::TokenStream;
use proc_macro2::{Ident, Span, TokenStream as Tokens};
use quote::quote;
use syn::{
    DeriveInput, Error, Expr, ExprCall, ExprLit, Lit, LitInt, LitStr, Path, Result, parse_macro_input,
    spanned::Spanned as _,
};

/// Binds a payload type to its kind and to the defaults of its jobs.
///
/// ```ignore
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(kind = "email.send", queue = "mail", max_attempts = 8, timeout = "30s")]
/// struct SendEmail { to: String }
/// ```
///
/// | key | meaning | default |
/// |---|---|---|
/// | `kind` | the kind: 1 to 128 ASCII letters, digits, `.`, `_`, `-` | required |
/// | `queue` | where its jobs wait: the same, up to 64 | `default` |
/// | `max_attempts` | how many attempts a job gets, at least 1 | 20 |
/// | `timeout` | how long one attempt may run, such as `"30s"`, `"5m"` | without limit |
/// | `result_ttl` | how long results are kept, such as `"1h"` | the worker's setting `result_ttl` |
/// | `retry` | when a failed attempt is tried again, see below | `exponential("5s")` |
/// | `retry_base` | short for `retry = exponential(…)` | |
/// | `retry_cap` | the longest wait after any failure | the policy's |
/// | `version` | which form the payload has, at least 1; older ones go through `upgrade` | 1 |
/// | `upgrade` | a function that brings an older payload up to date, as `Job::upgrade` | refuses |
/// | `unique` | makes its jobs the only ones of their payload, see below | not unique |
/// | `gating` | a function from `&Self` to the `Gating` of a job: its limits, ordering key, tenant | none |
///
/// Where the type also implements `schemars::JsonSchema`, and `windlass` has its feature `schema`, workers publish its schema,
/// and the API refuses payloads that do not fit it.
///
/// `retry` is `exponential("5s")`, `linear("30s")`, `fixed("1m")`, or any constant expression that gives a `RetryPolicy`,
/// such as `retry = RetryPolicy::custom(my_function)`.
///
/// `unique(fields(customer, region), within = "1h", on_conflict = "replace")`: a job enqueued from Rust is the only one of its
/// kind with these fields, while it is unfinished or, with `within`, for that time from its acceptance. A field that serde
/// renames, or a part of one, is named by a JSON pointer, as in `fields("/customer/id")`; without `fields`, the whole payload
/// counts. Another job is answered with the `existing` one (the default), has its payload `replace` that of the other while
/// that has not started (`replace_all`: its time as well), or is `refuse`d.
#[proc_macro_derive(Job, attributes(job))]
pub fn derive_job(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

#[derive(Default)]
struct Options {
    kind: Option<LitStr>,
    queue: Option<LitStr>,
    max_attempts: Option<LitInt>,
    timeout: Option<Tokens>,
    result_ttl: Option<Tokens>,
    retry: Option<Tokens>,
    retry_cap: Option<Tokens>,
    version: Option<LitInt>,
    upgrade: Option<syn::Path>,
    gating: Option<Path>,
    unique: Option<unique::Rule>,
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    let options = read(input)?;
    let missing = || Error::new(Span::call_site(), "a job needs a kind: add #[job(kind = \"…\")]");
    let kind = options.kind.ok_or_else(missing)?;
    let queue = options.queue.map(|queue| quote!(const QUEUE: &'static str = #queue;));
    let max_attempts = options.max_attempts.map(|n| quote!(const MAX_ATTEMPTS: u32 = #n;));
    let some = |name: &str, duration: Option<Tokens>| {
        let name = Ident::new(name, Span::call_site());
        duration.map(|duration| {
            quote! {
                const #name: ::core::option::Option<::core::time::Duration> = ::core::option::Option::Some(#duration);
            }
        })
    };
    let timeout = some("TIMEOUT", options.timeout);
    let result_ttl = some("RESULT_TTL", options.result_ttl);
    let retry = (options.retry.is_some() || options.retry_cap.is_some()).then(|| {
        let policy = options.retry.unwrap_or_else(|| quote!(::windlass::RetryPolicy::DEFAULT));
        let cap = options.retry_cap.map(|cap| quote!(.cap(#cap)));
        quote!(const RETRY: ::windlass::RetryPolicy = #policy #cap;)
    });
    let version = options.version.map(|version| quote!(const VERSION: u16 = #version;));
    let upgrade = options.upgrade.map(|upgrade| {
        quote! {
            fn upgrade(
                from: u16,
                payload: ::windlass::JsonValue,
            ) -> ::core::result::Result<::windlass::JsonValue, ::windlass::UpgradeError> {
                #upgrade(from, payload)
            }
        }
    });
    let gating = options.gating.map(|function| {
        quote!(fn gating(&self) -> ::windlass::Gating {
            #function(self)
        })
    });
    let unique = options.unique.map(|rule| rule.method(input)).transpose()?;
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #generics ::windlass::Job for #name #arguments #bounds {
            const KIND: &'static str = #kind;
            #queue
            #max_attempts
            #timeout
            #result_ttl
            #retry
            #version
            #upgrade
            #gating
            #unique

            fn schema() -> ::core::option::Option<::windlass::JsonValue> {
                #[allow(unused_imports)]
                use ::windlass::schema::{WithSchema as _, WithoutSchema as _};
                (&::windlass::schema::Probe::<Self>::new()).schema()
            }
        }
    })
}

fn read(input: &DeriveInput) -> Result<Options> {
    let mut options = Options::default();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("job")) {
        attribute.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            match key.as_str() {
                "kind" => options.kind = Some(name(meta.value()?.parse()?, 128)?),
                "queue" => options.queue = Some(name(meta.value()?.parse()?, 64)?),
                "max_attempts" => {
                    let number: LitInt = meta.value()?.parse()?;
                    if number.base10_parse::<u32>()? == 0 {
                        return Err(Error::new(number.span(), "a job needs at least 1 attempt"));
                    }
                    options.max_attempts = Some(number);
                }
                "timeout" => options.timeout = Some(duration(&meta.value()?.parse()?)?),
                "result_ttl" => options.result_ttl = Some(duration(&meta.value()?.parse()?)?),
                "retry" | "retry_base" if options.retry.is_some() => {
                    return Err(meta.error("retry and retry_base say the same; use one of them, once"));
                }
                "retry" => options.retry = Some(policy(&meta.value()?.parse()?)?),
                "retry_base" => {
                    let base = duration(&meta.value()?.parse()?)?;
                    options.retry = Some(quote!(::windlass::RetryPolicy::exponential(#base)));
                }
                "retry_cap" => options.retry_cap = Some(duration(&meta.value()?.parse()?)?),
                "version" => {
                    let number: LitInt = meta.value()?.parse()?;
                    if !(1..=0x7fff).contains(&number.base10_parse::<u16>()?) {
                        return Err(Error::new(number.span(), "a version is between 1 and 32767"));
                    }
                    options.version = Some(number);
                }
                "upgrade" => options.upgrade = Some(meta.value()?.parse()?),
                "unique" if options.unique.is_some() => return Err(meta.error("unique is said twice")),
                "unique" => options.unique = Some(unique::read(&meta)?),
                "gating" => options.gating = Some(meta.value()?.parse()?),
                _ => {
                    return Err(meta.error(
                        "unknown key: use kind, queue, max_attempts, timeout, result_ttl, retry, retry_base, retry_cap, version, upgrade, gating or unique",
                    ));
                }
            }
            Ok(())
        })?;
    }
    Ok(options)
}

/// The rule of names, which the core checks again when the worker starts.
fn name(literal: LitStr, longest: usize) -> Result<LitStr> {
    let text = literal.value();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=longest).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(literal)
    } else {
        let rule = format!("use 1 to {longest} ASCII letters, digits, '.', '_' or '-'");
        Err(Error::new(literal.span(), rule))
    }
}

/// A policy by its short name with a duration as text, or any expression as it stands.
fn policy(expression: &Expr) -> Result<Tokens> {
    if let Expr::Call(ExprCall { func, args, .. }) = expression
        && let Expr::Path(name) = &**func
        && let Some(name) = name.path.get_ident()
        && ["exponential", "linear", "fixed"].iter().any(|short| name == short)
    {
        let mut args = args.iter();
        return match (args.next(), args.next()) {
            (Some(Expr::Lit(ExprLit { lit: Lit::Str(wait), .. })), None) => {
                let wait = duration(wait)?;
                Ok(quote!(::windlass::RetryPolicy::#name(#wait)))
            }
            _ => Err(Error::new(expression.span(), format!("write {name}(\"30s\"), with another duration"))),
        };
    }
    Ok(quote!((#expression)))
}

fn duration(literal: &LitStr) -> Result<Tokens> {
    let duration = humantime::parse_duration(&literal.value()).map_err(|error| {
        Error::new(literal.span(), format!("{error}: write a duration such as \"30s\" or \"5m\""))
    })?;
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    Ok(quote!(::core::time::Duration::new(#seconds, #nanos)))
}
