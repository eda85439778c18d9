"""Corrects MiniStack: API Gateway's own responses are as the template says.

These are its errors (`GatewayResponses` in the template) and its answers to preflight requests
(`Cors`). The correction replaces private Python functions of MiniStack. See `emulator.py`.
"""

from http import HTTPStatus
from typing import Any

from ministack.services import apigateway_v1


def use() -> None:
    """Make MiniStack answer as the template says.

    MiniStack can give errors another form, and add headers to preflight responses, but does not
    read these from a CloudFormation template. It also has an answer of its own, with the status
    502, if a Lambda function fails. On AWS, such a failure is the error INTEGRATION_FAILURE.
    """
    import_api, import_operation = apigateway_v1._import_rest_api, apigateway_v1._import_operation
    invoke = apigateway_v1._invoke_lambda_proxy_v1

    def import_with_responses(specification: dict[str, Any], *arguments: object) -> str:
        api_id: str = import_api(specification, *arguments)
        responses = specification.get("x-amazon-apigateway-gateway-responses", {})
        for error_type, response in responses.items():
            apigateway_v1._put_gateway_response(api_id, error_type, response)
        return api_id

    def import_with_answer(
        api_id: str, resource_id: str, method: str, operation: dict[str, Any], *arguments: object
    ) -> None:
        import_operation(api_id, resource_id, method, operation, *arguments)
        integration = operation["x-amazon-apigateway-integration"]
        for response in integration.get("responses", {}).values():
            apigateway_v1._put_integration_response(
                api_id, resource_id, method, response["statusCode"], response
            )

    async def invoke_or_fail(*arguments: object, **more: object) -> Any:  # noqa: ANN401  MiniStack's own
        answer = await invoke(*arguments, **more)
        if isinstance(answer, tuple) and answer[0] == HTTPStatus.BAD_GATEWAY:
            return apigateway_v1._gw_error("INTEGRATION_FAILURE", "Internal server error")
        return answer

    apigateway_v1._import_rest_api = import_with_responses
    apigateway_v1._import_operation = import_with_answer
    apigateway_v1._invoke_lambda_proxy_v1 = invoke_or_fail
