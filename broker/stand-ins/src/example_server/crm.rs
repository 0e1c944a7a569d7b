//! Customers and their payments. One tool for each of the tiers low, medium and critical.

use super::{Handed, Tool, Tools};
use async_trait::async_trait;
use deputize_call::json::{JsonError, Object};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The tools as approved. The first is the harmless one: it reads one customer.
pub(super) fn tools() -> Result<Vec<Tool>, JsonError> {
    Ok(vec![lookup_customer()?, refund_payment()?, export_customers()?])
}

fn lookup_customer() -> Result<Tool, JsonError> {
    let definition = json!({
        "name": "lookup_customer",
        "title": "Look up a customer",
        "description": "Returns name, e-mail address and payments of one customer.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "customer_id": { "type": "string", "pattern": "^cus_[0-9]{1,8}$", "maxLength": 12 }
            },
            "required": ["customer_id"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": true, "openWorldHint": false }
    });
    Tool::new(definition, ("low", "read"), json!({ "customer_id": "cus_17" }))
}

fn refund_payment() -> Result<Tool, JsonError> {
    let definition = json!({
        "name": "refund_payment",
        "title": "Refund a payment",
        "description": "Pays back a payment, wholly or in part.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "payment_id": { "type": "string", "pattern": "^pay_[0-9]{1,8}$", "maxLength": 12 },
                "amount_cents": { "type": "integer", "minimum": 1, "maximum": 1_000_000 }
            },
            "required": ["payment_id", "amount_cents"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": false, "destructiveHint": true, "idempotentHint": false }
    });
    Tool::new(definition, ("medium", "write"), json!({ "payment_id": "pay_81", "amount_cents": 4200 }))
}

fn export_customers() -> Result<Tool, JsonError> {
    let definition = json!({
        "name": "export_customers",
        "title": "Export all customers",
        "description": "Returns every customer with all payments.",
        "inputSchema": {
            "type": "object",
            "properties": { "format": { "enum": ["json"] } },
            "required": ["format"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": true, "openWorldHint": false }
    });
    Tool::new(definition, ("critical", "read"), json!({ "format": "json" }))
}

/// What is known of customers.
#[derive(Debug)]
pub(super) struct Crm {
    /// Payments by id, with what may still be refunded.
    payments: Mutex<BTreeMap<&'static str, Payment>>,
}

#[derive(Debug, Clone, Copy)]
struct Payment {
    customer: &'static str,
    refundable_cents: u64,
}

impl Default for Crm {
    fn default() -> Self {
        let payments =
            [("pay_81", "cus_17", 8400), ("pay_82", "cus_17", 1999), ("pay_90", "cus_18", 129_900)]
                .map(|(id, customer, refundable_cents)| (id, Payment { customer, refundable_cents }));
        Self { payments: Mutex::new(payments.into()) }
    }
}

#[async_trait]
impl Tools for Crm {
    async fn run(&self, tool: &str, arguments: &Object, _: &Handed) -> Result<Value, String> {
        let text = |name| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        match tool {
            "lookup_customer" => {
                let id = text("customer_id");
                let customer = CUSTOMERS.iter().find(|customer| customer.id == id);
                customer.map(|customer| self.describe(customer)).ok_or_else(|| format!("no customer {id}"))
            }
            "refund_payment" => self.refund(
                text("payment_id"),
                arguments.get("amount_cents").and_then(Value::as_u64).unwrap_or(0),
            ),
            "export_customers" => Ok(
                json!({ "customers": CUSTOMERS.iter().map(|customer| self.describe(customer)).collect::<Vec<_>>() }),
            ),
            _ => Err(format!("no tool {tool}")),
        }
    }
}

impl Crm {
    fn describe(&self, customer: &Customer) -> Value {
        let payments = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        let payments: Vec<Value> = payments
            .iter()
            .filter(|(_, payment)| payment.customer == customer.id)
            .map(|(id, payment)| json!({ "payment_id": id, "refundable_cents": payment.refundable_cents }))
            .collect();
        json!({ "customer_id": customer.id, "name": customer.name, "email": customer.email, "payments": payments })
    }

    fn refund(&self, id: &str, amount_cents: u64) -> Result<Value, String> {
        let mut payments = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        let payment = payments.get_mut(id).ok_or_else(|| format!("no payment {id}"))?;
        payment.refundable_cents = payment
            .refundable_cents
            .checked_sub(amount_cents)
            .ok_or_else(|| format!("{id} has only {} cents left to refund", payment.refundable_cents))?;
        Ok(
            json!({ "payment_id": id, "refunded_cents": amount_cents, "refundable_cents": payment.refundable_cents }),
        )
    }
}

struct Customer {
    id: &'static str,
    name: &'static str,
    email: &'static str,
}

static CUSTOMERS: [Customer; 2] = [
    Customer { id: "cus_17", name: "Grace Gray", email: "grace@shop.example" },
    Customer { id: "cus_18", name: "Heidi Hill", email: "heidi@shop.example" },
];
