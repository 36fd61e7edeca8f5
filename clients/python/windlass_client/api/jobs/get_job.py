from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...types import Response, UNSET
from ... import errors

from ...models.job import Job
from ...models.problem import Problem
from ...types import UNSET, Unset
from typing import cast
from uuid import UUID



def _get_kwargs(
    id: UUID,
    *,
    wait: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,

) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(prefer, Unset):
        headers["Prefer"] = prefer

    if not isinstance(if_none_match, Unset):
        headers["If-None-Match"] = if_none_match



    

    params: dict[str, Any] = {}

    params["wait"] = wait


    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}


    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/jobs/{id}".format(id=quote(str(id), safe=""),),
        "params": params,
    }


    _kwargs["headers"] = headers
    return _kwargs



def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Any | Job | Problem | None:
    if response.status_code == 200:
        response_200 = Job.from_dict(response.json())



        return response_200

    if response.status_code == 304:
        response_304 = cast(Any, None)
        return response_304

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())



        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())



        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())



        return response_403

    if response.status_code == 404:
        response_404 = Problem.from_dict(response.json())



        return response_404

    if response.status_code == 422:
        response_422 = Problem.from_dict(response.json())



        return response_422

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())



        return response_429

    if response.status_code == 500:
        response_500 = Problem.from_dict(response.json())



        return response_500

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())



        return response_503

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[Any | Job | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    id: UUID,
    *,
    client: AuthenticatedClient,
    wait: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,

) -> Response[Any | Job | Problem]:
    """ The job as it is now, or once it has changed

    Args:
        id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
        wait (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.
        prefer (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Job | Problem]
     """


    kwargs = _get_kwargs(
        id=id,
wait=wait,
prefer=prefer,
if_none_match=if_none_match,

    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)

def sync(
    id: UUID,
    *,
    client: AuthenticatedClient,
    wait: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,

) -> Any | Job | Problem | None:
    """ The job as it is now, or once it has changed

    Args:
        id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
        wait (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.
        prefer (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Job | Problem
     """


    return sync_detailed(
        id=id,
client=client,
wait=wait,
prefer=prefer,
if_none_match=if_none_match,

    ).parsed

async def asyncio_detailed(
    id: UUID,
    *,
    client: AuthenticatedClient,
    wait: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,

) -> Response[Any | Job | Problem]:
    """ The job as it is now, or once it has changed

    Args:
        id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
        wait (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.
        prefer (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Job | Problem]
     """


    kwargs = _get_kwargs(
        id=id,
wait=wait,
prefer=prefer,
if_none_match=if_none_match,

    )

    response = await client.get_async_httpx_client().request(
        **kwargs
    )

    return _build_response(client=client, response=response)

async def asyncio(
    id: UUID,
    *,
    client: AuthenticatedClient,
    wait: str | Unset = UNSET,
    prefer: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,

) -> Any | Job | Problem | None:
    """ The job as it is now, or once it has changed

    Args:
        id (UUID): Names one job for ever. Time-ordered, so that the store can partition by it.
        wait (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.
        prefer (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Job | Problem
     """


    return (await asyncio_detailed(
        id=id,
client=client,
wait=wait,
prefer=prefer,
if_none_match=if_none_match,

    )).parsed
