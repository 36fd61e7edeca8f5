import createFetchClient, { type ClientOptions } from "openapi-fetch";

import type { components, paths } from "./schema.js";

/** What requests and answers are made of, such as `Schemas["Job"]`. */
export type Schemas = components["schemas"];
export type Job = Schemas["Job"];
/** Every refusal: RFC 9457. */
export type Problem = Schemas["Problem"];
export type { paths };

/**
 * A client whose methods know the paths of the API: `client.GET("/v1/jobs/{id}", { params: { path: { id } } })` gives
 * `data`, or else `error`, which is a `Problem`.
 *
 * @param baseUrl where the API is, such as `http://localhost:8080`
 * @param options `token` is an API key or a JSON Web Token, where the API asks for one; the rest is openapi-fetch's
 */
export function createClient(baseUrl: string, options: Omit<ClientOptions, "baseUrl"> & { token?: string } = {}) {
  const { token, headers, ...rest } = options;
  const client = createFetchClient<paths>({ ...rest, baseUrl, headers });
  if (token !== undefined) {
    client.use({
      onRequest({ request }) {
        request.headers.set("authorization", `Bearer ${token}`);
      },
    });
  }
  return client;
}
