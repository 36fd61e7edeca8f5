from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...types import Response, UNSET
from ... import errors

from ...models.problem import Problem
from ...models.queue_event import QueueEvent
from ...types import UNSET, Unset
from typing import cast



def _get_kwargs(
    name: str,
    *,
    for_: str | Unset = UNSET,

) -> dict[str, Any]:
    

    

    params: dict[str, Any] = {}

    params["for"] = for_


    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}


    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/queues/{name}/events".format(name=quote(str(name), safe=""),),
        "params": params,
    }


    return _kwargs



def _parse_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Problem | QueueEvent | None:
    if response.status_code == 200:
        response_200 = QueueEvent.from_dict(response.text)



        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())



        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())



        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())



        return response_403

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


def _build_response(*, client: AuthenticatedClient | Client, response: httpx.Response) -> Response[Problem | QueueEvent]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    name: str,
    *,
    client: AuthenticatedClient,
    for_: str | Unset = UNSET,

) -> Response[Problem | QueueEvent]:
    """ What happens to a queue's jobs, as an event stream

    Args:
        name (str):
        for_ (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | QueueEvent]
     """


    kwargs = _get_kwargs(
        name=name,
for_=for_,

    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)

def sync(
    name: str,
    *,
    client: AuthenticatedClient,
    for_: str | Unset = UNSET,

) -> Problem | QueueEvent | None:
    """ What happens to a queue's jobs, as an event stream

    Args:
        name (str):
        for_ (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | QueueEvent
     """


    return sync_detailed(
        name=name,
client=client,
for_=for_,

    ).parsed

async def asyncio_detailed(
    name: str,
    *,
    client: AuthenticatedClient,
    for_: str | Unset = UNSET,

) -> Response[Problem | QueueEvent]:
    """ What happens to a queue's jobs, as an event stream

    Args:
        name (str):
        for_ (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | QueueEvent]
     """


    kwargs = _get_kwargs(
        name=name,
for_=for_,

    )

    response = await client.get_async_httpx_client().request(
        **kwargs
    )

    return _build_response(client=client, response=response)

async def asyncio(
    name: str,
    *,
    client: AuthenticatedClient,
    for_: str | Unset = UNSET,

) -> Problem | QueueEvent | None:
    """ What happens to a queue's jobs, as an event stream

    Args:
        name (str):
        for_ (str | Unset): A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at
            most ten years.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | QueueEvent
     """


    return (await asyncio_detailed(
        name=name,
client=client,
for_=for_,

    )).parsed
